package engine

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"kiste/fault"
)

// endUnread ends a container whose document cannot be read: by its group, and by
// its keeper, who knows its process.
func (e *Engine) endUnread(id string) error {
	e.removeUsualGroup(id)
	if stream, _, err := e.ask(request{Op: "kill", ID: id}); err == nil {
		stream.Close()
	}
	for end := time.Now().Add(patience); e.isKept(id); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			return &fault.Error{Op: "end container", On: short(id), Kind: fault.Conflict, Err: errors.New("its document cannot be read, and whoever keeps it does not let go")}
		}
	}
	return nil
}

// removeUsualGroup ends what is in the group that a container has, unless it has
// asked for another.
func (e *Engine) removeUsualGroup(id string) {
	if parent, err := place(); err == nil {
		removeAnyGroup(parent + "/" + id)
	}
}

// links are the directories of links to containers, by which names, ranges of ids and levels are theirs.
func (e *Engine) links() []string {
	return []string{filepath.Dir(e.nameFile("x")), e.claims(), e.levels()}
}

// removeLinks takes away what a container has beside its directories, where no
// document says what that is: its group, its name, its range of ids.
func (e *Engine) removeLinks(id string) {
	e.removeUsualGroup(id)
	for _, dir := range e.links() {
		removeEach(dir, func(link string) bool {
			owner, err := os.Readlink(link)
			return err == nil && owner == id
		})
	}
}
