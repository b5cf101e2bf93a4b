package lifecycle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/resctrl"
	"kiste/kernel/cgroup/systemd"
	"kiste/store"
)

// Schema is the version of state.json.
const Schema = 1

// What lies in a container's directory.
const (
	stateFile  = "state.json"
	configFile = "config.json" // the bundle's, as it was at the creation
	startFIFO  = sys.StartFIFO
	reportFIFO = sys.ReportFIFO
	goAhead    = sys.GoAhead // where a start wants nothing but its byte
	bornLink   = "process"   // a symbolic link to nothing: its text is "PID BIRTH" of the document
)

// A document is state.json. It is written before anything is made, so that
// whoever finds the rest of a creation that was cut short knows what to remove.
// The process is written down beside it: a link is there at once, in one call.
type document struct {
	Schema      int               `json:"schema"`
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Mount       uint64            `json:"mount,omitempty"` // that stays at Rootfs on the host; 0: none
	Created     time.Time         `json:"created"`
	Owner       uint32            `json:"owner"` // the user id of who created it
	PID         int               `json:"pid"`   // 0: there is no process, or it is written down beside
	Birth       uint64            `json:"birth"` // start time of the process, in clock ticks since the boot
	Cgroup      string            `json:"cgroup,omitempty"`
	Hierarchies cgroup.Layout     `json:"hierarchies"`     // in which it is
	Unit        *systemd.Unit     `json:"unit,omitempty"`  // that systemd has made; nil: none
	Class       *resctrl.Class    `json:"class,omitempty"` // of cache and memory bandwidth; nil: none
	Program     string            `json:"program"`         // what the process is to execute
	Keyring     string            `json:"keyring,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Hooks       *specs.Hooks      `json:"hooks,omitempty"` // those that come after the creation
}

// check refuses what this program cannot have written.
func (d *document) check(id string) error {
	switch {
	case d.Schema > Schema:
		return &fault.Error{Op: "read container", On: id, Kind: fault.Unsupported, Err: fmt.Errorf("it has schema %d and this program knows %d", d.Schema, Schema)}
	case d.Schema < 1 || d.ID != id || d.PID < 0:
		return damaged(id)
	}
	return nil
}

func damaged(id string) error {
	return &fault.Error{Op: "read container", On: id, Kind: fault.Invalid, Err: errors.New("its document is damaged"), Hint: "remove it: delete --force " + id}
}

func (d *document) process() process.Identity { return process.Identity{PID: d.PID, Start: d.Birth} }

// A Container is one that Create or Run has made.
type Container struct {
	root Root
	dir  string
	doc  document

	linux atomic.Pointer[specs.Linux] // of the spec, once it has been read
	ended bool                        // its process: nobody need look for it
}

func (c *Container) file(name string) string { return filepath.Join(c.dir, name) }

// writeBorn writes down the process.
func (c *Container) writeBorn() error {
	return os.Symlink(strconv.Itoa(c.doc.PID)+" "+strconv.FormatUint(c.doc.Birth, 10), c.file(bornLink))
}

// readBorn reads which process was written down, if there is one.
func (c *Container) readBorn() error {
	if c.doc.PID != 0 {
		return nil
	}
	text, err := os.Readlink(c.file(bornLink))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	pid, birth, _ := strings.Cut(text, " ")
	if err == nil {
		c.doc.PID, err = strconv.Atoi(pid)
	}
	if err == nil {
		c.doc.Birth, err = strconv.ParseUint(birth, 10, 64)
	}
	return err
}

// write replaces the document. It lies in memory: there is no disk to wait for.
func (c *Container) write() error {
	b, err := store.Encode(&c.doc)
	if err != nil {
		return err
	}
	return store.WriteBriefly(c.file(stateFile), b)
}
