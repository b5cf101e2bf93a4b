package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// anonymousLabel is what Docker's volumes without a name are known by.
const anonymousLabel = "com.docker.volume.anonymous"

// A VolumeInfo is what is known of a volume.
type VolumeInfo struct {
	Name    string
	Dir     string // of its files
	Labels  map[string]string
	Options map[string]string // of the local driver
	Created time.Time
	Links   int // containers that have it
}

// Anonymous reports whether it was made without a name.
func (v *VolumeInfo) Anonymous() bool { _, ok := v.Labels[anonymousLabel]; return ok }

// volumeDocument lies in a volume's directory: one that "run" has made of a name
// alone has none.
type volumeDocument struct {
	Schema  int               `json:"schema"`
	Labels  map[string]string `json:"labels,omitempty"`
	Options map[string]string `json:"options,omitempty"`
	Created time.Time         `json:"created"`
	Project uint32            `json:"project,omitempty"` // of the quota that limits it
}

const volumeFile = "volume.json"

// VolumeOptions say what volume to make. The zero value is an anonymous one.
type VolumeOptions struct {
	Name    string
	Driver  string // "local", or nothing
	Labels  map[string]string
	Options map[string]string
}

// CreateVolume makes a volume and gives its name. One that is there stays as it
// is, as with Docker.
func (e *Engine) CreateVolume(o VolumeOptions) (string, error) {
	if o.Driver != "" && o.Driver != "local" {
		return "", &fault.Error{Op: "create volume", On: o.Name, Kind: fault.Unsupported,
			Err: fmt.Errorf("error looking up volume plugin %s: plugin %q not found", o.Driver, o.Driver), Hint: `"local" is the only driver`}
	}
	if err := errors.Join(checkVolumeName(o.Name), checkVolumeOptions(o.Options)); err != nil {
		return "", err
	}
	doc := &volumeDocument{Schema: Schema, Labels: maps.Clone(o.Labels), Options: o.Options, Created: time.Now()}
	if o.Name == "" {
		o.Name = newID()
		if doc.Labels == nil {
			doc.Labels = map[string]string{}
		}
		doc.Labels[anonymousLabel] = ""
	}
	if err := e.Store.Open(); err != nil {
		return "", err
	}
	fresh, err := makeVolume(filepath.Dir(e.Store.Volume(o.Name)), "", doc)
	if err != nil {
		return "", volumeError("create", o.Name, err)
	}
	if fresh {
		e.EmitVolume("create", o.Name, nil)
	}
	return o.Name, nil
}

func volumeError(verb, name string, err error) error {
	if f, ok := err.(*fault.Error); ok && f.Hint != "" {
		return f
	}
	return &fault.Error{Op: verb + " volume", On: name, Err: err}
}

// Volume tells of one volume.
func (e *Engine) Volume(name string) (*VolumeInfo, error) {
	home := filepath.Dir(e.Store.Volume(name))
	if name == "" || checkVolumeName(name) != nil {
		return nil, noVolume(name)
	}
	info, err := os.Lstat(home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noVolume(name)
	}
	if err != nil {
		return nil, volumeError("read", name, err)
	}
	doc, err := readVolume(home)
	if err != nil {
		return nil, err
	}
	v := &VolumeInfo{Name: name, Dir: e.Store.Volume(name), Labels: doc.Labels, Options: doc.Options, Created: doc.Created}
	if v.Created.IsZero() {
		v.Created = info.ModTime()
	}
	if isID(name) && doc.Schema == 0 {
		v.Labels = map[string]string{anonymousLabel: ""}
	}
	return v, nil
}

func noVolume(name string) error {
	return &fault.Error{Op: "find volume", On: name, Kind: fault.NotFound, Err: errors.New("no such volume: " + name), Hint: `"kiste volume ls" lists them`}
}

// readVolume reads the document in a volume's directory; none is empty.
func readVolume(home string) (volumeDocument, error) {
	var doc volumeDocument
	name := filepath.Base(home)
	err := store.ReadJSON(filepath.Join(home, volumeFile), &doc)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return doc, nil
	case err != nil:
		return doc, &fault.Error{Op: "read volume", On: name, Kind: fault.KindOf(err), Err: err, Hint: "its document is damaged: remove " + filepath.Join(home, volumeFile) + ", and its options and labels with it"}
	case doc.Schema > Schema:
		return doc, &fault.Error{Op: "read volume", On: name, Kind: fault.Unsupported, Err: fmt.Errorf("it has schema %d and this kiste knows %d", doc.Schema, Schema), Hint: "use the newer kiste that wrote it"}
	}
	return doc, nil
}

// Volumes lists all volumes by name. What cannot be read is told of in bad, and
// keeps nothing else from being listed.
func (e *Engine) Volumes() (all []*VolumeInfo, bad []error, err error) {
	owners, err := e.owners()
	if err != nil {
		return nil, nil, err
	}
	containers, bad, err := e.Brief()
	if err != nil {
		return nil, bad, err
	}
	links := map[string]int{}
	for _, c := range containers {
		for _, name := range c.VolumeNames {
			links[name]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(owners)) {
		if strings.HasPrefix(name, ".") {
			continue
		}
		v, err := e.Volume(name)
		switch {
		case fault.KindOf(err) == fault.NotFound: // it goes this moment
		case err != nil:
			bad = append(bad, err)
		default:
			v.Links = links[name]
			all = append(all, v)
		}
	}
	return all, bad, nil
}

// RemoveVolume removes a volume that no container has. While anybody makes a
// container it is fault.Conflict.
func (e *Engine) RemoveVolume(name string) error {
	if name == "" || checkVolumeName(name) != nil {
		return noVolume(name)
	}
	lock, err := e.lockAlone()
	if errors.Is(err, fs.ErrNotExist) {
		return noVolume(name)
	}
	if err != nil {
		return err
	}
	defer lock.Unlock()
	if _, err := os.Lstat(filepath.Dir(e.Store.Volume(name))); errors.Is(err, fs.ErrNotExist) {
		return noVolume(name)
	}
	users, err := e.usersOf(name)
	if err != nil {
		return volumeError("remove", name, err)
	}
	if len(users) > 0 {
		return &fault.Error{Op: "remove volume", On: name, Kind: fault.Conflict, Err: fmt.Errorf("volume is in use - [%s]", strings.Join(users, ", ")), Hint: "remove these containers first: kiste rm"}
	}
	e.releaseVolume(filepath.Dir(e.Store.Volume(name)), "")
	if err := e.discardVolume(name); err != nil {
		return volumeError("remove", name, err)
	}
	e.EmitVolume("destroy", name, nil)
	return nil
}

// usersOf gives the ids of the containers that have a volume. One whose document
// cannot be read is an error: what it needs is not known.
func (e *Engine) usersOf(name string) ([]string, error) {
	all, bad, err := e.Brief()
	if err != nil || len(bad) > 0 {
		return nil, errors.Join(append(bad, err)...)
	}
	var users []string
	for _, c := range all {
		for _, n := range c.VolumeNames {
			if n == name && !slices.Contains(users, c.ID) {
				users = append(users, c.ID)
			}
		}
	}
	return users, nil
}

// PruneVolumes removes the volumes that no container has and that goes chooses.
// It gives their names and their size in bytes.
func (e *Engine) PruneVolumes(goes func(v *VolumeInfo) bool) (names []string, freed int64, err error) {
	all, bad, err := e.Volumes()
	if err != nil || len(bad) > 0 {
		return nil, 0, errors.Join(append(bad, err)...)
	}
	for _, v := range all {
		if v.Links > 0 || !goes(v) {
			continue
		}
		size := treeSize(v.Dir)
		err := e.RemoveVolume(v.Name)
		switch {
		case err == nil:
			names, freed = append(names, v.Name), freed+size
		case fault.KindOf(err) != fault.NotFound && !strings.Contains(err.Error(), "in use"):
			bad = append(bad, err)
		}
	}
	return names, freed, errors.Join(bad...)
}

// firstProject begins the numbers of projects of volumes, beyond what people give
// by hand.
const firstProject = 1 << 24

// limitVolume limits what may be written to a volume, by a project quota of the
// file system that it lies on. It gives the project.
func limitVolume(data string, size int64) (uint32, error) {
	dir, err := os.Open(data)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	fd := int(dir.Fd())
	unsupported := func(err error) error {
		return &fault.Error{Op: "limit volume", Kind: fault.Unsupported, Err: fmt.Errorf("quota size requested but no quota support: %w", err),
			Hint: "the file system of " + filepath.Dir(filepath.Dir(data)) + " has to be mounted with prjquota (ext4 with the features project and quota, or xfs), and it takes root"}
	}
	// Who makes two at once gets two numbers.
	lock, err := store.LockDir(filepath.Dir(filepath.Dir(data)), true)
	if err != nil {
		return 0, err
	}
	defer lock.Unlock()
	for project := uint32(firstProject); project < firstProject+1<<20; project++ {
		limit, used, err := sys.ProjectUsage(fd, project)
		if err != nil {
			return 0, unsupported(err)
		}
		if limit > 0 || used > 0 {
			continue
		}
		if err := errors.Join(sys.LimitProject(fd, project, uint64(size)), sys.SetProject(fd, project)); err != nil {
			return 0, unsupported(err)
		}
		return project, nil
	}
	return 0, &fault.Error{Op: "find a project", Kind: fault.Unavailable, Err: errors.New("all are taken")}
}

// unlimitVolume gives the project of a volume that goes back.
func unlimitVolume(home string) {
	doc, err := readVolume(home)
	if err != nil || doc.Project == 0 {
		return
	}
	if dir, err := os.Open(filepath.Dir(home)); err == nil {
		defer dir.Close()
		_ = sys.LimitProject(int(dir.Fd()), doc.Project, 0)
	}
}

// unmounted gives the volumes of a container back, and tells of it.
func (e *Engine) unmounted(c *Container) {
	e.release(c.ID, c)
	for _, name := range c.VolumeNames {
		e.EmitVolume("unmount", name, map[string]string{"container": c.ID})
	}
}
