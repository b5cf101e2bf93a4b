package lifecycle

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/criu"
	"kiste/container/hook"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
)

// Restore makes a container go on from what Checkpoint has saved. Its bundle is
// the one of o; o.Files take the place of standard streams that were pipes or
// files of outside. The process is a child of this one, as with Run.
func (r Root) Restore(id string, o CreateOptions, ck CheckpointOptions) (*Container, *process.Process, error) {
	m := &making{root: r, o: o, saved: &ck}
	p, err := m.make(id)
	return m.c, p, err
}

// A restoring is a Restore under way.
type restoring struct {
	m       *making
	job     *criu.Job
	layout  cgroup.Layout
	steps   []cgroup.Step // that make the cgroup
	grouped bool          // they are done
	pid     int
	console *os.File
}

func (m *making) restore() (*process.Process, error) {
	r := &restoring{m: m}
	proc, err := r.do(*m.saved)
	if err != nil {
		closeFile(r.console)
		if !r.grouped {
			// It has taken back what it made: what is there still is of others.
			m.c.doc.Cgroup, m.c.doc.Unit = "", nil
		}
		return nil, &fault.Error{Op: "restore container", On: m.c.doc.ID, Err: err}
	}
	return proc, nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

func (r *restoring) do(ck CheckpointOptions) (*process.Process, error) {
	m := r.m
	// The container's directory goes with one that could not be restored.
	job, err := ck.job(m.spec, "restore.log", ck.images())
	if err != nil {
		return nil, err
	}
	r.job = job
	defer job.Images.Close()
	defer job.Work.Close()
	job.Kind = rpc.CriuReqType_RESTORE
	if err := r.compileGroup(); err != nil {
		return nil, err
	}
	if err := m.writeDown(); err != nil {
		return nil, err
	}
	if err := r.descriptors(); err != nil {
		return nil, err
	}
	closeAll, err := r.namespaces()
	defer closeAll()
	if err != nil {
		return nil, err
	}
	o := job.Options
	o.EvasiveDevices, o.RstSibling = flag(true), flag(true)
	if ck.LSMProfile != "" {
		o.LsmProfile = &ck.LSMProfile
	}
	if ck.LSMMount != "" {
		o.LsmMountContext = &ck.LSMMount
	}
	job.Notify = r.hear
	job.Started = func(pid int) error {
		if err := r.enter(pid); err != nil {
			return err
		}
		return r.sources() // the group's directories are among them
	}
	unmount, err := r.root()
	if err != nil {
		return nil, err
	}
	defer unmount()
	if err := job.Do(); err != nil {
		return nil, err
	}
	return r.adopt()
}

// compileGroup finds what makes the container's cgroup.
func (r *restoring) compileGroup() error {
	l, err := cgroup.Detect()
	if err == nil {
		r.layout, r.steps, err = r.m.groups(l)
	}
	return err
}

// enter makes the container's cgroup, moves CRIU's process pid there, and tells
// it where that is: the processes that CRIU makes are born in its group.
func (r *restoring) enter(pid int) error {
	if err := r.makeGroup(pid); err != nil {
		return err
	}
	r.grouped = true
	at := r.m.c.doc.Cgroup
	if at == "" {
		return nil
	}
	group, err := cgroup.Open(r.layout, at)
	if err != nil {
		return err
	}
	if err := group.Attach(pid); err != nil {
		return err
	}
	for _, h := range r.layout.All() {
		if !isDir(h.Dir(at)) {
			continue
		}
		// To CRIU a root without a controller is that of all; with an empty
		// one it is that of version 2 beside version 1.
		below := strings.TrimPrefix(h.Dir(at), h.Mount)
		root := &rpc.CgroupRoot{Path: &below}
		if r.layout.Kind() != "v2" {
			controllers := strings.Join(h.Controllers, ",")
			if h.V2 {
				controllers = ""
			}
			root.Ctrl = &controllers
		}
		r.job.Options.CgRoot = append(r.job.Options.CgRoot, root)
	}
	return nil
}

// makeGroup makes the group, or nothing. A scope of systemd's is made around a
// process.
func (r *restoring) makeGroup(pid int) error {
	if r.m.scope == nil {
		return cgroup.Do(r.steps)
	}
	undo, err := r.m.startScope(pid)
	if err != nil {
		return err
	}
	if err = cgroup.Do(r.steps); err != nil {
		undo()
	}
	return err
}

// restoredRoot is where the root file system of a container is while CRIU
// restores it.
const restoredRoot = "root"

// root mounts the root file system on itself, since CRIU wants a mount, at a
// place of ours.
func (r *restoring) root() (unmount func(), err error) {
	at := r.m.c.file(restoredRoot)
	if err := os.Mkdir(at, 0o700); err != nil {
		return nil, err
	}
	if err := sys.Mount(r.m.c.doc.Rootfs, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return nil, err
	}
	undo := func() {
		_ = sys.Unmount(at, unix.MNT_DETACH)
		_ = os.Remove(at)
	}
	if err := sys.Mount("", at, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		undo()
		return nil, err
	}
	r.job.Options.Root = &at
	return undo, nil
}

// sources tells CRIU what to mount at the places that are external, and makes
// those places. A link on the way to one is refused: CRIU would follow it
// (CVE-2026-119101).
func (r *restoring) sources() error {
	mounts, err := r.m.c.externals(r.m.spec)
	if err != nil {
		return err
	}
	root, err := sys.OpenFile(r.m.c.doc.Rootfs, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer sys.Close(root)
	for _, e := range mounts {
		if e.place {
			if err := makePlace(root, e.at, e.source); err != nil {
				return &fault.Error{Op: "make mount point", On: e.at, Err: err}
			}
		}
		r.job.Options.ExtMnt = append(r.job.Options.ExtMnt, &rpc.ExtMountMap{Key: &e.at, Val: &e.source})
	}
	for _, at := range ownPlaces(r.m.spec) {
		// CRIU says what is wrong with one that cannot be made.
		_ = makePlace(root, at, "/")
	}
	return nil
}

// ownPlaces are where CRIU mounts what is the container's own, on no other
// mount of the container: an engine that restores from an image has a new root,
// without what create has made in the old one.
func ownPlaces(spec *specs.Spec) []string {
	var all []string
	for _, m := range spec.Mounts {
		at := path.Join("/", m.Destination)
		below := func(o specs.Mount) bool {
			above := path.Join("/", o.Destination)
			return above != "/" && strings.HasPrefix(at, above+"/")
		}
		if at != "/" && !isBind(m) && !slices.ContainsFunc(spec.Mounts, below) {
			all = append(all, at)
		}
	}
	return all
}

// makePlace makes what is missing of a mount point, below other mounts too:
// those that CRIU makes itself have theirs.
func makePlace(root int, at, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	dir, err := sys.OpenIn(root, ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { sys.Close(dir) }()
	names := strings.Split(strings.Trim(at, "/"), "/")
	for i, name := range names {
		if i == len(names)-1 && !info.IsDir() {
			err = sys.MknodAt(dir, name, unix.S_IFREG|0o644, 0)
		} else {
			err = sys.MkdirAt(dir, name, 0o755)
		}
		if err != nil && !errors.Is(err, syscall.EEXIST) {
			return err
		}
		next, err := sys.OpenIn(dir, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		sys.Close(dir)
		dir = next
		if link, err := sys.IsLink(dir); err != nil || link {
			return errors.Join(err, errors.New("a link lies on the way to it"))
		}
	}
	return nil
}

// descriptors gives the program other standard streams than those that it had.
func (r *restoring) descriptors() error {
	// A checkpoint may come from elsewhere: nobody waits for who writes a FIFO.
	f, err := os.OpenFile(filepath.Join(r.job.Images.Name(), descriptorsFile), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := readDescriptors(f)
	if err != nil {
		return &fault.Error{Op: "read", On: f.Name(), Kind: fault.Invalid, Err: err}
	}
	for i, name := range names {
		file := r.m.o.Files[i]
		if file != nil && (strings.HasPrefix(name, "pipe:[") || strings.HasPrefix(name, "file[")) {
			r.job.Inherit = append(r.job.Inherit, criu.Inherited{Key: name, File: file})
		}
	}
	return nil
}

// readDescriptors reads what a checkpoint says of the streams, at most three,
// from at most 64 KiB.
func readDescriptors(from io.Reader) (names []string, err error) {
	err = json.NewDecoder(io.LimitReader(from, 64<<10)).Decode(&names)
	if err == nil && len(names) > 3 {
		err = errors.New("there are more than three streams")
	}
	return names, err
}

// namespaces gives CRIU those that are not the container's own.
func (r *restoring) namespaces() (closeAll func(), err error) {
	var files []*os.File
	closeAll = func() {
		for _, f := range files {
			f.Close()
		}
	}
	for _, ns := range r.m.spec.Linux.Namespaces {
		key := externalNamespace(ns)
		if key == "" {
			continue
		}
		f, err := os.Open(ns.Path)
		if err != nil {
			return closeAll, err
		}
		files = append(files, f)
		r.job.Inherit = append(r.job.Inherit, criu.Inherited{Key: key, File: f})
	}
	return closeAll, nil
}

// hear does what is to be done while CRIU works.
func (r *restoring) hear(n criu.Notice) error {
	switch n.Script {
	case "post-restore":
		r.pid = n.PID
		return r.m.born(n.PID)
	case "orphan-pts-master":
		closeFile(r.console)
		r.console = n.Console
		return nil
	case "setup-namespaces":
		return r.m.hooksOf(n.PID)
	}
	closeFile(n.Console)
	return nil
}

// adopt makes the restored process, which is a child of this one, a Process.
func (r *restoring) adopt() (*process.Process, error) {
	proc, err := process.Adopt(r.pid, r.console)
	if err != nil {
		return nil, err
	}
	if err := r.m.hearers.tell(proc); err != nil {
		end(proc)
		return nil, err
	}
	return proc, nil
}

// hooksOf runs those that come when the namespaces are there.
func (m *making) hooksOf(pid int) error {
	for _, kind := range []string{hook.Prestart, hook.CreateRuntime} {
		if err := m.runHooks(kind, pid); err != nil {
			return err
		}
	}
	return nil
}
