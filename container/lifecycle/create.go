package lifecycle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/privilege"
	"kiste/kernel/privilege/selinux"
	"kiste/store"
)

// CreateOptions say how to create a container. The zero value is right for a
// container without a terminal whose bundle is the working directory.
type CreateOptions struct {
	// Bundle is the directory with config.json; empty: the working directory.
	Bundle string

	// Files are descriptors 0, 1 and 2 of the program where it has no
	// terminal. Nil is this process's own.
	Files [3]*os.File

	// ConsoleSocket is the path of a Unix socket that gets the terminal's
	// master (SCM_RIGHTS). Create of a container with a terminal needs one.
	ConsoleSocket string

	// PidfdSocket is the path of a Unix socket that gets a pidfd of the
	// container's process; empty: none.
	PidfdSocket string

	// PidFile gets the process's number; empty: none.
	PidFile string

	// PreserveFDs is how many descriptors from 3 on the program keeps.
	PreserveFDs int

	// Systemd lets systemd make the cgroup: a scope, of which cgroupsPath says
	// SLICE:PREFIX:NAME. For another user than root it is his own instance.
	Systemd bool

	// NoNewKeyring leaves the program in the caller's session keyring.
	NoNewKeyring bool

	// Detach says that nobody holds the terminal of a Run.
	Detach bool

	// NoPivot leaves the host's root below the container's: for a root on an
	// initramfs.
	NoPivot bool

	// NoCgroup makes no cgroup: the container stays in the caller's.
	NoCgroup bool

	// Tolerant goes without a cgroup where the caller may make none, unless
	// the spec asks for a certain one, or for limits.
	Tolerant bool

	// Trace hears how long each step took. Nil: nobody does.
	Trace func(step plan.Step, took time.Duration)

	// Edit may change the spec before anything but the container's directory,
	// dir, is made. Nil: nobody does.
	Edit func(dir string, s *specs.Spec) error
}

// Create makes a container that waits for Start. Errors leave nothing behind.
func (r Root) Create(id string, o CreateOptions) (*Container, error) {
	o.Detach = true
	m := &making{root: r, o: o, wait: true}
	p, err := m.make(id)
	if err != nil {
		return nil, err
	}
	p.Release()
	return m.c, nil
}

// Run makes a container whose program runs at once. The process is a child of
// this one: the caller waits for its end, and then calls Delete; or it calls
// Release and leaves the rest to whoever reaps.
func (r Root) Run(id string, o CreateOptions) (*Container, *process.Process, error) {
	m := &making{root: r, o: o}
	p, err := m.make(id)
	if err != nil || !m.wait {
		return m.c, p, err
	}
	if err := m.c.Start(); err != nil {
		end(p)
		return nil, nil, errors.Join(err, m.c.Delete(true))
	}
	return m.c, p, nil
}

// A making is a Create or a Run under way.
type making struct {
	root    Root
	o       CreateOptions
	wait    bool
	c       *Container
	spec    *specs.Spec
	config  []byte // the text of spec
	lock    *store.Lock
	fifos   [2]*os.File
	hearers hearers
	scope   *scope             // nil: the cgroup is made without systemd
	saved   *CheckpointOptions // of a Restore
}

func (m *making) make(id string) (*process.Process, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := m.read(id); err != nil {
		return nil, err
	}
	var err error
	if m.hearers, err = dialAll(m.o.ConsoleSocket, m.o.PidfdSocket); err != nil {
		m.close()
		return nil, err
	}
	m.hearers.pidFile = m.o.PidFile
	if err := m.claim(); err != nil {
		m.close()
		return nil, err
	}
	begin := m.start
	if m.saved != nil {
		begin = m.restore
	} else {
		// The hook that comes last runs in a container that waits.
		m.wait = m.wait || m.spec.Hooks != nil && len(m.spec.Hooks.StartContainer) > 0
	}
	p, err := begin()
	m.close()
	if err != nil {
		m.c.remove()
		m.lock.Unlock()
		return nil, err
	}
	m.lock.Unlock()
	if m.wait {
		return p, nil
	}
	if err := m.c.started(); err != nil {
		_, _ = p.Wait()
		p.Release()
		return nil, errors.Join(err, m.c.Delete(true))
	}
	return p, nil
}

// read reads the bundle.
func (m *making) read(id string) error {
	bundle, err := filepath.Abs(m.o.Bundle)
	if err != nil {
		return &fault.Error{Op: "find bundle", On: m.o.Bundle, Err: err}
	}
	m.spec = &specs.Spec{}
	if m.config, err = readJSON(filepath.Join(bundle, configFile), m.spec); err != nil {
		return err
	}
	if err := m.checkSpec(); err != nil {
		return err
	}
	rootfs := m.spec.Root.Path
	if !filepath.IsAbs(rootfs) {
		rootfs = filepath.Join(bundle, rootfs)
	}
	if info, err := os.Stat(rootfs); err != nil || !info.IsDir() {
		return &fault.Error{Op: "find root file system", On: rootfs, Kind: fault.NotFound, Err: errors.New("rootfs (" + rootfs + ") does not exist")}
	}
	absoluteSources(m.spec, bundle)
	m.c = &Container{root: m.root, dir: m.root.dir(id), doc: document{
		Schema: Schema, OCIVersion: m.spec.Version, ID: id, Bundle: bundle, Rootfs: rootfs, Created: time.Now().UTC(), Owner: uint32(os.Geteuid()),
		Program: m.spec.Process.Args[0], Annotations: m.spec.Annotations, Hooks: lateHooks(m.spec.Hooks),
	}}
	if !m.o.NoNewKeyring {
		m.c.doc.Keyring = "_ses." + id
	}
	return nil
}

func (m *making) checkSpec() error {
	bad := func(field, why string) error {
		return &fault.Error{Op: "use config.json", On: field, Kind: fault.Invalid, Err: errors.New(why)}
	}
	s := m.spec
	switch {
	case s.Root == nil || s.Root.Path == "":
		return bad("root", "root must be specified")
	case s.Process == nil || len(s.Process.Args) == 0:
		return bad("process.args", "process.args must not be empty")
	case s.Linux == nil:
		return bad("linux", "it is missing")
	}
	return checkTerminal(s.Process, m.o.Detach, m.o.ConsoleSocket)
}

// absoluteSources resolves the sources of binds as the specification says:
// below the bundle.
func absoluteSources(s *specs.Spec, bundle string) {
	for i := range s.Mounts {
		if m := &s.Mounts[i]; m.Type == "bind" && !filepath.IsAbs(m.Source) {
			m.Source = filepath.Join(bundle, m.Source)
		}
	}
}

func (m *making) close() {
	m.hearers.close()
	m.scope.close()
	for _, f := range m.fifos {
		if f != nil {
			f.Close()
		}
	}
}

// claim makes the container's directory and writes down what is going to be
// made.
func (m *making) claim() error {
	if err := os.MkdirAll(m.root.Dir, 0o711); err != nil {
		return &fault.Error{Op: "create container", On: m.c.doc.ID, Err: err}
	}
	err := os.Mkdir(m.c.dir, 0o711)
	if errors.Is(err, fs.ErrExist) {
		return &fault.Error{Op: "create container", On: m.c.doc.ID, Kind: fault.Exists, Err: errors.New("container with given ID already exists")}
	}
	m.root.reached("directory")
	if err == nil {
		m.lock, err = store.LockDir(m.c.dir, true)
	}
	if err != nil {
		return &fault.Error{Op: "create container", On: m.c.doc.ID, Err: err}
	}
	return nil
}

// start makes the container and its process.
func (m *making) start() (*process.Process, error) {
	if m.o.Edit != nil {
		if err := m.o.Edit(m.c.dir, m.spec); err != nil {
			return nil, err
		}
	}
	sys.RestoreFileLimit() // which the plan is made for
	p, err := m.plan()
	if err != nil {
		return nil, err
	}
	if err := m.writeDown(); err != nil {
		return nil, &fault.Error{Op: "create container", On: m.c.doc.ID, Err: err}
	}
	proc, err := m.root.carryOut(p, process.Options{Files: m.o.Files, Start: m.fifos[0], Report: m.fifos[1], Born: m.born, Hooks: m.runHooks, Scope: m.startScope, Listener: m.giveListener, Mounted: m.mounted, Trace: m.o.Trace})
	if err != nil {
		// Start has taken back what it made. The cgroup that is there still
		// was there before.
		m.c.doc.Cgroup, m.c.doc.Unit, m.c.doc.Class = "", nil, nil
		return nil, explain(m.c.doc.Program, err)
	}
	m.root.reached("process")
	if err := m.waits(proc); err != nil {
		end(proc)
		return nil, err
	}
	if err := m.hearers.tell(proc); err != nil {
		end(proc)
		return nil, err
	}
	m.root.reached("told")
	if m.wait && m.c.plain() {
		// Without it the start takes longer.
		_ = sys.WriteGoAhead(m.c.dir, proc.PID, cgroup.FreezerFile(m.c.doc.Hierarchies, m.c.doc.Cgroup))
	}
	return proc, nil
}

// waits is an error if the process of a container that is to wait has ended: it
// was killed without a word.
func (m *making) waits(p *process.Process) error {
	if !m.wait {
		return nil
	}
	ended, err := sys.Poll(false, p.PidFD())
	if err != nil || !ended[0] {
		return err
	}
	why := "container init has ended before it was started"
	if g, err := m.c.group(); err == nil && g.OOMKills() > 0 {
		why = "container init was OOM-killed (memory limit too low?)"
	}
	return &fault.Error{Op: "start container process", Kind: fault.Unavailable, Err: errors.New(why)}
}

func (m *making) startScope(pid int) (func(), error) { return m.scope.start(pid) }

// writeDown makes the container's files.
func (m *making) writeDown() error {
	if err := m.c.write(); err != nil {
		return err
	}
	m.root.reached("document")
	if err := sys.WriteFile(m.c.file(configFile), m.config, 0o600); err != nil {
		return err
	}
	m.root.reached("config")
	if !m.wait {
		return nil
	}
	for i, name := range []string{startFIFO, reportFIFO} {
		if err := sys.Mkfifo(m.c.file(name), 0o600); err != nil {
			return err
		}
		fd, err := sys.OpenFile(m.c.file(name), unix.O_RDWR)
		if err != nil {
			return err
		}
		m.fifos[i] = os.NewFile(uintptr(fd), name)
		if err := m.labelFIFO(fd); err != nil {
			return err
		}
		m.root.reached(name)
	}
	return nil
}

// labelFIFO lets the container use one: who waits there has the container's label
// already, and SELinux takes away what that may not use.
func (m *making) labelFIFO(fd int) error {
	if m.spec.Linux == nil || m.spec.Linux.MountLabel == "" {
		return nil
	}
	err := selinux.Set(fd, m.spec.Linux.MountLabel)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // nor does that file system keep any from the container
	}
	return err
}

// born writes down the process. Until that is done the process waits, and ends
// when this one does.
func (m *making) born(pid int) error {
	who, err := process.Identify(pid)
	if err != nil {
		return err
	}
	m.root.reached("born")
	m.c.doc.PID, m.c.doc.Birth = who.PID, who.Start
	return m.c.writeBorn()
}

// mounted writes down a mount of the container that everybody sees.
func (m *making) mounted(id uint64) error {
	m.c.doc.Mount = id
	return m.c.write()
}

// plan compiles the spec.
func (m *making) plan() (*plan.Plan, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	layout, groups, err := m.groups(layout)
	if err != nil {
		return nil, err
	}
	filter, err := filterOf(m.spec.Linux)
	if err != nil {
		return nil, err
	}
	o := plan.Options{Bundle: m.c.doc.Bundle, Filter: filter, NoLandlock: true, Wait: m.wait, Keep: m.o.PreserveFDs, Keyring: m.c.doc.Keyring, PlainLines: !m.o.Detach, NoPivot: m.o.NoPivot, Streams: process.Streams(m.o.Files)}
	if needsHome(m.spec.Process.Env) {
		o.Home = process.Home(m.c.doc.Rootfs, m.spec.Mounts, m.spec.Process.User.UID)
	}
	for _, n := range m.spec.Linux.Namespaces {
		if n.Type == specs.UserNamespace && n.Path != "" {
			if o.UIDs, o.GIDs, err = process.JoinedMaps(n.Path); err != nil {
				return nil, err
			}
		}
	}
	f := process.Facts(layout)
	f.Groups, f.Scope = groups, m.scope.name()
	if err := m.class(&f); err != nil {
		return nil, err
	}
	p, err := plan.Compile(m.spec, nil, o, f)
	if err == nil {
		m.root.warn(p.Warnings...)
	}
	return p, err
}

// needsHome: runc gives its programs a $HOME, and engines count on that.
func needsHome(env []string) bool {
	return !slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") && e != "HOME=" })
}

// filterOf compiles the profile of system calls, if there is one.
func filterOf(l *specs.Linux) (privilege.Filter, error) {
	if l.Seccomp == nil {
		return privilege.Filter{}, nil
	}
	return privilege.Compile(l.Seccomp, runtime.GOARCH)
}
