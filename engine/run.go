package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/container/monitor"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/host"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/image/snapshot"
	"kiste/internal/stub"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
	"kiste/kernel/privilege"
	"kiste/store"
)

// RunOptions say what to run. The zero value of all but Image is right.
type RunOptions struct {
	Image  string // as the user wrote it
	Wishes bundle.Wishes

	// Pull brings an image into the store. It is called when the image is
	// not there, when the wishes say so, and for what lies on this host;
	// quiet when there is little to tell. Nil: images are not pulled.
	Pull func(ctx context.Context, image string, quiet bool) error

	// Warn hears sentences for the user. Nil: silence.
	Warn func(string)

	// Rows and Columns are the size of the terminal, if it has one. Zero: the
	// kernel's, none.
	Rows, Columns uint16

	// DryRun prepares the plan and leaves nothing behind; no powers needed.
	DryRun bool

	// Asked are the options by which it is made, as they were typed: "--name=web".
	Asked []string

	// StartsNext: Create is followed by Start, which makes the document last.
	StartsNext bool

	// Lasting: the container goes on when this process ends, since the monitor
	// starts it.
	Lasting bool

	// creating: it is not started now, so nothing is taken that it has only while
	// it runs.
	creating bool

	// fileLimit is the limit of open files, soft and hard, that it gets if
	// nobody has asked for one; 0, 0: this process's.
	fileLimit [2]uint64

	id string // of the new container; empty: any
}

// A Prepared container is all data: its document and its plan.
type Prepared struct {
	*Container
	Plan   *plan.Plan
	e      *Engine
	lock   *store.Lock // on its state, until it runs
	keeper *store.Lock // held as long as it runs
	o      RunOptions
	work   string // what exists only while it runs

	written uint64 // the inode of the document as it was written last

	layout cgroup.Layout

	layerLabel string // of the image's files, for SELinux; empty: none

	network *userNetwork // nil: none that a program serves

	uids, gids namespace.IDMaps // of its user namespace, made or joined

	chosen   []*Network // of Endpoints, as they have just been read
	joining  joining
	reserved []*os.File // the host's ports that lead to its own

	adding *store.Lock // on the store, shared
	umask  int         // the caller's
}

// Prepare turns an image and wishes into a container that is created and
// whose plan is made. With DryRun nothing is written.
func (e *Engine) Prepare(ctx context.Context, o RunOptions) (*Prepared, error) {
	p := &Prepared{e: e, o: o, Container: &Container{Schema: Schema}}
	// What is made for the container is read by its users, whatever the mask of
	// whoever makes it, as with Docker, whose daemon has this one.
	p.umask = sys.Umask(0o022)
	if o.Lasting && o.fileLimit[1] == 0 {
		p.o.fileLimit = raisedLimit()
	}
	if o.id == "" {
		p.o.id = newID()
	}
	if o.Warn == nil {
		p.o.Warn = func(string) {}
	}
	c := p.Container
	c.ID, c.Created, c.Wishes, c.ImageName, c.Driver = p.o.id, time.Now(), o.Wishes, o.Image, "overlay"
	c.State.Status = inspect.Created
	p.work = e.Store.Running(c.ID)
	if err := p.keepGCOut(); err != nil {
		return nil, err
	}
	lower, err := p.findImage(ctx)
	if err != nil {
		p.letGCIn()
		return nil, err
	}
	c.Lower = lower
	if o.Lasting && c.Wishes.System(c.Image) {
		c.Wishes.TTY = true // its console
	}
	for _, part := range []func() error{p.volumesFrom, p.choose, p.claim, func() error { return p.compile(lower) }} {
		if err := part(); err != nil {
			p.Discard()
			if own := new(fault.Error); noRoom(err) && !(errors.As(err, &own) && own.Op == fillVolume) {
				err = e.cannotWrite(c, err)
			}
			return nil, err
		}
	}
	return p, nil
}

// keepGCOut holds the store until the document names the layers that the
// container stands on.
func (p *Prepared) keepGCOut() (err error) {
	if !p.o.DryRun {
		p.adding, err = store.LockFile(p.e.lockOfStore(), false)
	}
	return err
}

func (p *Prepared) letGCIn() {
	if p.adding != nil {
		p.adding.Unlock()
		p.adding = nil
	}
}

// findImage gives the directories of the image's layers, the topmost first.
func (p *Prepared) findImage(ctx context.Context) ([]string, error) {
	w := &p.Wishes
	if w.RootFS {
		return p.plainRoot(p.o.Image)
	}
	src, err := reference.ParseSource(p.o.Image)
	if err != nil {
		return nil, err
	}
	switch {
	case src.Transport == reference.Embedded:
		return p.embedded(src.Path)
	case src.Transport == reference.Rootfs && isDir(src.Path):
		lower, err := p.plainRoot(src.Path)
		if err == nil {
			err = p.e.liesApart(lower[0])
		}
		return lower, err
	}
	entry, err := p.entry(ctx, src)
	if err != nil {
		return nil, err
	}
	if a := entry.Config.Architecture; a != "" && a != hostArchitecture() && p.Wishes.Platform == "" {
		p.o.Warn("the image is for " + a + " and this host is " + hostArchitecture())
	}
	p.ImageID, p.Layers = entry.ID, entry.Layers
	p.Image = imageConfig(entry.Config)
	layers := snapshot.Open(p.e.Store)
	mounts, err := layers.Mounts(entry.Layers, "", "")
	if err != nil {
		return nil, err
	}
	if mounts[0].Type == "bind" {
		return []string{mounts[0].Source}, nil
	}
	return mounts[0].Lower, nil
}

// entry finds the image's names and layers, pulled where need be. What lies on
// this host is always looked at again: it costs little, and may have changed.
func (p *Prepared) entry(ctx context.Context, src reference.Source) (catalog.Entry, error) {
	w, name, near := &p.Wishes, p.o.Image, src.Transport != reference.Docker
	if near || strings.HasPrefix(name, "docker://") {
		name = catalog.NameOf(src)
	}
	entry, err := catalog.Get(p.e.Store, name)
	missing := errors.Is(err, fault.NotFound)
	switch {
	case missing && (w.Pull == "never" || p.o.DryRun || p.o.Pull == nil):
		return entry, &fault.Error{Op: "find image", On: p.o.Image, Kind: fault.NotFound, Err: errors.New("it is not here, and is not to be pulled"), Hint: "kiste pull " + p.o.Image}
	case err != nil && !missing:
		return entry, err
	case w.Pull == "never" || p.o.DryRun || p.o.Pull == nil:
		if !fits(entry, w.Platform) {
			err = &fault.Error{Op: "use image", On: p.o.Image, Kind: fault.NotFound, Err: fmt.Errorf("it is for %s, not for %s, and is not to be pulled", entry.Platform, w.Platform), Hint: "leave out --pull never"}
		}
		return entry, err
	case !missing && w.Pull != "always" && !near && fits(entry, w.Platform):
		return entry, nil
	}
	if err := p.o.Pull(ctx, p.o.Image, near && !missing); err != nil {
		return entry, err
	}
	return catalog.Get(p.e.Store, name)
}

func fits(e catalog.Entry, platform string) bool {
	return platform == "" || e.Platform == platform || strings.HasPrefix(platform, e.Platform+"/")
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// imageConfig is an image's config in the container wing's words.
func imageConfig(c catalog.Config) bundle.ImageConfig {
	out := bundle.ImageConfig{Architecture: c.Architecture, OS: c.OS, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User,
		WorkingDir: c.WorkingDir, Volumes: c.Volumes, ExposedPorts: c.ExposedPorts, StopSignal: c.StopSignal, Labels: c.Labels, Shell: c.Shell}
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &bundle.Healthcheck{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries}
	}
	return out
}

// plainRoot is a directory as image: its only layer. Docker has no such thing;
// a shell is what such a root is for.
func (p *Prepared) plainRoot(dir string) ([]string, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		abs, err = filepath.EvalSymlinks(abs)
	}
	if err == nil && !isDir(abs) {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, &fault.Error{Op: "use root file system", On: dir, Err: err, Hint: "name a directory"}
	}
	p.Image = bundle.ImageConfig{Cmd: []string{"/bin/sh"}}
	return []string{abs}, nil
}

// liesApart refuses a root that has the store in it: the kernel lets no overlay have
// the directory of its changes below one of its layers on the same file system
// (ovl_check_layer in fs/overlayfs/super.c), and says ELOOP.
func (e *Engine) liesApart(root string) error {
	lib, err := filepath.EvalSymlinks(e.Store.Lib)
	if err != nil || !below(lib, root) {
		return nil
	}
	at, _, err := sys.InodeOf(root)
	mine, _, failed := sys.InodeOf(lib)
	if err != nil || failed != nil || at != mine {
		return nil
	}
	return &fault.Error{Op: "use root file system", On: root, Kind: fault.Invalid, Err: errors.New("the store is in it (" + lib + "), and changes kept there cannot lie above it"),
		Hint: "KISTE_LIB=DIR with a directory outside, or on another file system; or --rootfs, which changes it itself"}
}

// claim reserves the container's directories, name and lock.
func (p *Prepared) claim() error {
	if p.o.DryRun {
		p.Name = p.Wishes.Name
		return nil
	}
	if err := checkCIDFile(p.Wishes.CIDFile); err != nil {
		return err
	}
	p.Name = p.Wishes.Name
	if p.Name == "" {
		p.Name = randomName(p.ID)
	}
	dir := p.e.Store.Container(p.ID)
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	for _, d := range []struct {
		path string
		mode fs.FileMode
	}{{dir, 0o711}, {filepath.Join(dir, "upper"), 0o755}, {filepath.Join(dir, "work"), 0o700}, {filepath.Join(dir, "root"), 0o700}} {
		if os.Geteuid() == 0 && filepath.Base(d.path) == "root" {
			continue // a place to mount by path, which root needs not
		}
		if err := os.Mkdir(d.path, d.mode); err != nil {
			return &fault.Error{Op: "create container", On: p.Name, Err: err}
		}
	}
	if err := os.MkdirAll(p.work, 0o711); err != nil {
		return &fault.Error{Op: "create container", On: p.Name, Err: err}
	}
	var err error
	if p.lock, err = p.e.lockState(p.ID); err != nil {
		return err
	}
	if p.keeper, err = p.e.keeperLock(p.ID); err != nil {
		return err
	}
	return p.e.claimName(p.Name, p.ID)
}

func checkCIDFile(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Lstat(path); err == nil {
		return &fault.Error{Op: "write container id", On: path, Kind: fault.Conflict, Err: errors.New("container ID file found, make sure the other container isn't running or delete it")}
	}
	return nil
}

// compile makes the bundle and the plan.
func (p *Prepared) compile(lower []string) error {
	if err := p.connect(); err != nil {
		return err
	}
	facts, err := p.facts()
	if err != nil {
		return err
	}
	if p.Wishes.Init && p.Wishes.PID.Kind != bundle.HostNS {
		if facts.Init, err = p.initProgram(); err != nil {
			return err
		}
	}
	r, err := bundle.Compile(p.Image, p.Wishes, facts)
	if err != nil {
		return err
	}
	p.Result = r
	if err := p.labelFile(facts.Init); err != nil {
		return err
	}
	if p.Wishes.TTY && p.o.Rows > 0 && p.o.Columns > 0 {
		r.Spec.Process.ConsoleSize = &specs.Box{Height: uint(p.o.Rows), Width: uint(p.o.Columns)}
	}
	for _, w := range r.Warnings {
		p.o.Warn(w)
	}
	for _, part := range []func(lower []string) error{p.user, p.joins, p.volumes, p.userNet, p.files} {
		if err := part(lower); err != nil {
			return err
		}
	}
	filter, err := p.filter()
	if err != nil {
		return err
	}
	return p.compilePlan(lower, facts, filter)
}

func (p *Prepared) compilePlan(lower []string, facts bundle.Facts, filter privilege.Filter) error {
	spec := p.Result.Spec
	layout, _ := cgroup.Detect()
	p.layout = layout
	f := process.Facts(layout)
	f.Host = facts.Root
	groups, err := p.groups(layout)
	if err != nil {
		return err
	}
	f.Groups = groups
	root, err := p.root(lower)
	if err != nil {
		return err
	}
	machine, err := p.machineID(lower)
	if err != nil {
		return err
	}
	pl, err := plan.Compile(p.limited(spec), root, plan.Options{
		MachineID: machine, Served: p.served(),
		Origin: p.Result.Origin, Search: p.Result.SearchPath, Filter: filter, NoLandlock: p.Result.NoLandlock, LogDenials: p.Wishes.Security.LogDenials,
		UIDs: facts.UIDs, GIDs: facts.GIDs, DieWithParent: !p.o.Lasting, Keyring: "_ses." + short(p.ID), Target: filepath.Join(p.e.Store.Container(p.ID), "root"),
		Network: p.joining.plan,
	}, f)
	p.Plan = pl
	return err
}

// raisedLimit is the limit of open files that the monitor would have raised for
// itself, had this process started it; 0, 0 where there is nothing to raise.
func raisedLimit() [2]uint64 {
	soft, hard, err := sys.Getrlimit(syscall.RLIMIT_NOFILE)
	if err != nil || soft == hard {
		return [2]uint64{}
	}
	return [2]uint64{soft, hard}
}

// limited is spec with the limit of open files that the container would have
// if this process had not more for itself.
func (p *Prepared) limited(spec *specs.Spec) *specs.Spec {
	const nofile = "RLIMIT_NOFILE"
	if p.o.fileLimit[1] == 0 || slices.ContainsFunc(spec.Process.Rlimits, func(r specs.POSIXRlimit) bool { return r.Type == nofile }) {
		return spec
	}
	s, process := *spec, *spec.Process
	process.Rlimits = append(slices.Clip(process.Rlimits), specs.POSIXRlimit{Type: nofile, Soft: p.o.fileLimit[0], Hard: p.o.fileLimit[1]})
	s.Process = &process
	return &s
}

// unmarkVolatile removes what overlayfs leaves in its directory work of a mount
// with the option volatile, and with which it mounts there no more.
func unmarkVolatile(work string) {
	removeKnown(filepath.Join(work, "work", "incompat"), "volatile/dirty", "volatile/")
}

// root is the mount of the root file system.
func (p *Prepared) root(lower []string) ([]chroot.Mount, error) {
	dir := p.e.Store.Container(p.ID)
	options := []string{"idmap"}
	if p.hasUserNS() {
		options = append(options, "nodev") // the image's device nodes: see groups
	}
	if p.Wishes.RootFS {
		return []chroot.Mount{{Type: "bind", Source: lower[0], Target: "/", Options: append([]string{"rbind", "rprivate"}, options...)}}, nil
	}
	if !p.o.DryRun {
		points, err := p.e.pointsLayer()
		if err != nil {
			return nil, &fault.Error{Op: "make mount points", On: p.e.Store.Lib, Err: err}
		}
		lower = append([]string{points}, lower...)
	}
	if err := errors.Join(p.labelLayers(lower), p.labelUpper(filepath.Join(dir, "upper"))); err != nil {
		return nil, err
	}
	m := chroot.Mount{Type: "overlay", Source: "overlay", Target: "/", Lower: lower, Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
	m.Options = options
	switch {
	case os.Geteuid() != 0:
		m.Options = []string{"userxattr"}
	case p.Wishes.Remove:
		// Nobody reads it after a power cut: its end need not wait until all that
		// the host has to write is on the disk.
		m.Options = append(m.Options, "volatile")
	}
	return []chroot.Mount{m}, nil
}

// groups are the steps that make the container's cgroup. An ordinary user
// without a group of its own is told which limits are not enforced.
func (p *Prepared) groups(layout cgroup.Layout) ([]cgroup.Step, error) {
	spec := p.Result.Spec
	limits, err := cgroup.FromSpec(spec.Linux.Resources)
	if err != nil {
		return nil, err
	}
	if p.hasUserNS() {
		// Who cannot make device nodes needs no list of devices.
		limits.Devices = nil
	}
	parent, err := cgroup.Place(layout)
	if p.Wishes.CgroupParent != "" {
		parent = p.Wishes.CgroupParent
	}
	if p.Unit != "" {
		parent, err = p.Unit, nil
	}
	if err != nil {
		if names := limitNames(limits); len(names) > 0 {
			p.o.Warn("no limit is enforced of: " + strings.Join(names, ", ") + " (" + plain(err) + ")")
		}
		return nil, nil
	}
	group := strings.TrimSuffix(parent, "/") + "/" + p.ID
	options, err := p.delegation(layout)
	if err != nil {
		return nil, err
	}
	steps, err := cgroup.Compile(layout, group, limits, options)
	if err != nil {
		return nil, err
	}
	p.Cgroup = group
	return steps, nil
}

func plain(err error) string {
	var f *fault.Error
	if errors.As(err, &f) && f.Hint != "" {
		return f.Hint
	}
	return err.Error()
}

// user finds out who the process is to be.
func (p *Prepared) user(lower []string) error {
	if upper := filepath.Join(p.e.Store.Container(p.ID), "upper"); isDir(upper) && !p.Wishes.RootFS {
		lower = append([]string{upper}, lower...) // of a container that has run
	}
	read := func(name string) ([]byte, error) {
		b, err := snapshot.ReadFile(lower, name, bundle.MaxAccounts)
		if fault.KindOf(err) == fault.NotFound {
			return nil, nil
		}
		return b, err
	}
	r := p.Result
	passwd, err := read("/etc/passwd")
	if err != nil {
		return err
	}
	group, err := read("/etc/group")
	if err != nil {
		return err
	}
	u, err := bundle.ResolveUser(r.User, passwd, group, r.Groups)
	if err != nil {
		return err
	}
	r.Spec.Process.User.UID, r.Spec.Process.User.GID, r.Spec.Process.User.AdditionalGids = u.UID, u.GID, u.Additional
	if r.NeedHome {
		home := u.Home
		if home == "" || home == "/" && u.UID == 0 && passwd == nil {
			home = "/root"
		}
		r.Spec.Process.Env = append(r.Spec.Process.Env, "HOME="+home)
	}
	return nil
}

// files writes those that the engine makes, readable for the container's root.
func (p *Prepared) files([]string) error {
	p.FilePaths = map[string]string{}
	spec := p.Result.Spec
	for _, f := range p.Result.Files {
		path := filepath.Join(p.work, filepath.Base(f.Path))
		m := &spec.Mounts[f.Index]
		m.Type, m.Source = "bind", path
		// They are made for this container and belong to its root, so
		// their file system need not be one that can be id-mapped.
		m.Options = slices.DeleteFunc(m.Options, func(o string) bool { return o == "idmap" || o == "ridmap" })
		m.UIDMappings, m.GIDMappings = nil, nil
		p.FilePaths[f.Path] = path
		if p.o.DryRun {
			continue
		}
		if err := sys.WriteFile(path, f.Data, 0o644); err != nil {
			return err
		}
		if err := errors.Join(p.giveToRoot(path), p.labelFile(path)); err != nil {
			return err
		}
	}
	return nil
}

// hasUserNS reports whether the container is in a user namespace that is not
// ours, a new one or another container's.
func (p *Prepared) hasUserNS() bool {
	return slices.ContainsFunc(p.Result.Spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
}

// giveToRoot makes the container's root the owner of a file of the host.
func (p *Prepared) giveToRoot(path string) error {
	uid, hasUID := p.uids.ToOutside(0)
	gid, hasGID := p.gids.ToOutside(0)
	if os.Geteuid() != 0 || !p.hasUserNS() || !hasUID || !hasGID {
		return nil
	}
	return os.Chown(path, int(uid), int(gid))
}

// filter compiles the system call filter.
func (p *Prepared) filter() (privilege.Filter, error) {
	f, err := p.plainFilter()
	if p.Wishes.Security.LogDenials && len(f.Instructions) > 0 {
		f.Flags |= privilege.FlagLog
	}
	return f, err
}

func (p *Prepared) plainFilter() (privilege.Filter, error) {
	var caps privilege.Caps
	if c := p.Result.Spec.Process.Capabilities; c != nil {
		caps, _ = privilege.ParseCaps(c.Bounding)
	}
	switch choice := p.Result.Seccomp; choice {
	case "unconfined":
		return privilege.Filter{}, nil
	case "":
		return privilege.DefaultFilter(caps)
	default:
		f, err := os.Open(choice)
		if err != nil {
			return privilege.Filter{}, &fault.Error{Op: "read seccomp profile", On: choice, Err: err}
		}
		defer f.Close()
		profile, err := privilege.ReadProfile(f, caps, runtime.GOARCH)
		if err != nil || profile == nil {
			return privilege.Filter{}, err
		}
		p.Result.Spec.Linux.Seccomp = profile
		filter, err := privilege.Compile(profile, runtime.GOARCH)
		if err == nil && filter.Flags&privilege.NewListener != 0 && profile.ListenerPath == "" {
			err = &fault.Error{Op: "use seccomp profile", On: choice, Kind: fault.Unsupported, Err: errors.New("SCMP_ACT_NOTIFY asks a listener, and it names none"), Hint: "add a listenerPath, the socket of one"}
		}
		return filter, err
	}
}

// initProgram writes the small init for --init.
func (p *Prepared) initProgram() (string, error) {
	path := filepath.Join(p.work, "init")
	if p.o.DryRun {
		return path, nil
	}
	program, err := stub.Init(runtime.GOARCH)
	if err != nil {
		return "", err
	}
	return path, os.WriteFile(path, program, 0o755)
}

// facts gathers what bundle must know.
func (p *Prepared) facts() (bundle.Facts, error) {
	root := os.Geteuid() == 0
	f := bundle.Facts{ID: p.ID, Root: root, UserNS: host.Userns.Have(), UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()),
		CPUs: sys.CPUs(), Device: devices, Thermal: host.Thermal(), HostName: hostName()}
	if err := p.networkFacts(&f); err != nil {
		return f, err
	}
	if p.Wishes.Privileged {
		held, err := privilege.Held()
		if err != nil {
			return f, err
		}
		f.Capabilities = held.Names()
		if f.Devices, err = devices("/dev"); err != nil {
			return f, err
		}
	}
	var err error
	if f.SELinux, err = p.selinux(); err != nil {
		return f, err
	}
	if root && f.UserNS && !host.IdmapOverlay.Have() {
		f.UserNS = false
	}
	f.IDMapped = root && f.UserNS
	f.NoSwapLimit = p.Wishes.Limits.Memory > 0 && !p.limitsSwap()
	joined, err := p.joinUser(&f)
	if err == nil && !joined {
		err = p.idRange(&f)
	}
	p.uids, p.gids = idMaps(f.UIDs), idMaps(f.GIDs)
	return f, err
}

// limitsSwap reports whether the container's swap can be limited.
func (p *Prepared) limitsSwap() bool {
	layout, err := cgroup.Detect()
	if err != nil {
		return true // the start tells
	}
	parent := p.Wishes.CgroupParent
	if parent == "" {
		parent, err = cgroup.Place(layout)
	}
	return err != nil || cgroup.LimitsSwap(layout, parent)
}

func hostName() string { name, _ := os.Hostname(); return name }

func readSmall(path string) ([]byte, error) { return sys.ReadFile(path, 1<<20) }

func devices(path string) ([]specs.LinuxDevice, error) {
	list, err := host.Devices(path)
	out := make([]specs.LinuxDevice, 0, len(list))
	for _, d := range list {
		mode, uid, gid := d.Mode, d.UID, d.GID
		out = append(out, specs.LinuxDevice{Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor, FileMode: &mode, UID: &uid, GID: &gid})
	}
	return out, err
}

// Container ids are taken from here on, beyond what useradd and subuid hand
// out. systemd-nspawn takes some of the same, for containers of its own.
const (
	firstRange = 1 << 30
	rangeSize  = 1 << 16
	rangeCount = 8192
)

// idRange gives the container a range of ids that no running one has.
func (p *Prepared) idRange(f *bundle.Facts) error {
	if !f.Root {
		return p.ownRange(f)
	}
	var start uint32
	fmt.Sscanf(p.ID[:4], "%x", &start)
	dir := p.e.claims()
	if !p.o.DryRun {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	for i := range uint32(rangeCount) {
		n := (start + i) % rangeCount
		claim := filepath.Join(dir, fmt.Sprint(n))
		base := uint32(firstRange + n*rangeSize)
		f.UIDs = []specs.LinuxIDMapping{{ContainerID: 0, HostID: base, Size: rangeSize}}
		f.GIDs = f.UIDs
		if p.o.DryRun {
			return nil
		}
		free, err := p.e.claimIDs(claim, p.ID)
		if free {
			p.IDs = claim
		}
		if free || err != nil {
			return err
		}
	}
	return &fault.Error{Op: "find a range of ids", Kind: fault.Unavailable, Err: errors.New("all are taken")}
}

// claimIDs makes a range of ids id's, unless another container has it.
func (e *Engine) claimIDs(claim, id string) (bool, error) {
	err := os.Symlink(id, claim)
	owner := ""
	if errors.Is(err, fs.ErrExist) {
		owner, _ = os.Readlink(claim)
	}
	if err != nil && e.stale(claim) {
		os.Remove(claim)
		err = os.Symlink(id, claim)
	}
	switch {
	case owner == id: // of a start that was killed
		return true, nil
	case errors.Is(err, fs.ErrExist):
		return false, nil
	case err != nil:
		return false, err
	case !e.stale(claim + sharers):
		// Whoever had it is gone, but not all who joined him.
		return false, os.Remove(claim)
	}
	return true, nil
}

// claims is the directory of claims on ranges of ids.
func (e *Engine) claims() string { return filepath.Join(e.Store.Run, "ids") }

// stale reports whether a claim's container is gone, or those of a directory of
// claims, which then is gone too.
func (e *Engine) stale(claim string) bool {
	id, err := os.Readlink(claim)
	if errors.Is(err, syscall.EINVAL) {
		removeEach(claim, e.stale)
		err = os.Remove(claim)
		return err == nil || errors.Is(err, fs.ErrNotExist)
	}
	return errors.Is(err, fs.ErrNotExist) || err == nil && e.gone(id)
}

// ownRange maps an ordinary user to root, and its subordinate ids above.
func (p *Prepared) ownRange(f *bundle.Facts) error {
	uids, gids := ownRanges()
	if uids == nil || gids == nil {
		p.o.Warn("only your own id is mapped, as root (" + host.Subids.Remedy + ")")
	}
	f.UIDs = mappings(namespace.RootMap(f.UID, uids))
	f.GIDs = mappings(namespace.RootMap(f.GID, gids))
	return nil
}

func mappings(ms namespace.IDMaps) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(ms))
	for i, m := range ms {
		out[i] = specs.LinuxIDMapping{ContainerID: m.Inside, HostID: m.Outside, Size: m.Size}
	}
	return out
}

// Discard removes what Prepare made.
func (p *Prepared) Discard() {
	if p.o.DryRun {
		return
	}
	defer p.letGCIn()
	p.freePorts()
	p.unlock()
	p.e.unserve(p.ID)
	var c *Container
	if p.Result != nil {
		c = p.Container
	} else {
		p.e.disconnect(p.Container)
		p.e.freeLevel(p.Container)
		if p.IDs != "" {
			os.Remove(p.IDs)
		}
		if owner, _ := os.Readlink(p.e.nameFile(p.Name)); owner == p.ID {
			os.Remove(p.e.nameFile(p.Name))
		}
	}
	p.e.removeFiles(p.ID, c, true)
}

// unlock lets others have the container.
func (p *Prepared) unlock() {
	for _, l := range []**store.Lock{&p.lock, &p.keeper} {
		if *l != nil {
			(*l).Unlock()
			*l = nil
		}
	}
}

// Start starts the container's process. It ends with this process at the
// latest.
func (p *Prepared) Start(o process.Options) (*process.Process, error) {
	proc, err := p.start(o)
	if err != nil {
		return nil, err
	}
	p.letGCIn()
	p.writeCIDFile()
	p.lock.Unlock()
	p.lock = nil
	return proc, nil
}

// start starts the process and writes that down.
func (p *Prepared) start(o process.Options) (*process.Process, error) {
	sys.RestoreFileLimit()
	o.Names, o.Proxy = p.announceNames, p.announceProxied
	o.Serve = p.serve
	proc, err := process.Start(p.Plan, o)
	if err != nil {
		return nil, p.explain(err)
	}
	id, err := process.Identify(proc.PID)
	if err == nil {
		p.State = started(p.State, id)
		p.passing = p.o.Lasting // the monitor makes it last
		if p.o.Lasting && p.Wishes.Healthcheck(p.Image.Healthcheck) != nil {
			p.State.Health = &inspect.Health{Status: "starting"}
		}
		err = p.e.write(p.Container)
		p.passing = false
	}
	if err != nil {
		proc.Signal(syscall.SIGKILL)
		proc.Wait()
		proc.Remove()
		return nil, err
	}
	_, p.written, _ = sys.InodeOf(p.e.document(p.ID))
	p.e.tellNetworks("connect", p.Container)
	p.e.Emit("start", p.Container, nil)
	return proc, nil
}

func (p *Prepared) writeCIDFile() {
	if file := p.Wishes.CIDFile; file != "" {
		if err := os.WriteFile(file, []byte(p.ID), 0o666&^fs.FileMode(p.umask)); err != nil {
			p.o.Warn("the id could not be written: " + err.Error())
		}
	}
}

// Finish writes down the end of the container, or removes it with --rm.
func (p *Prepared) Finish(proc *process.Process, status syscall.WaitStatus) error {
	defer p.unlock()
	var err error
	if p.lock, err = p.e.lockState(p.ID); err != nil {
		return ignoreGone(err)
	}
	if err := p.readAgain(); err != nil {
		return err
	}
	proc.Remove()
	return p.e.finish(p.Container, monitor.End{Status: status, Known: true, At: time.Now()})
}

// readAgain reads the document if anybody has changed it meanwhile.
func (p *Prepared) readAgain() error {
	if _, inode, err := sys.InodeOf(p.e.document(p.ID)); err == nil && inode == p.written {
		return nil
	}
	c, err := p.e.read(p.ID)
	if err == nil {
		p.Container = c
	}
	return err
}

// ignoreGone is nil where a container was removed, which somebody has done who
// wanted that.
func ignoreGone(err error) error {
	if errors.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// Create makes a container that Start can start.
func (e *Engine) Create(ctx context.Context, o RunOptions) (*Container, error) {
	o.Lasting, o.creating = true, true
	if file := &o.Wishes.Security.Seccomp; *file != "" && *file != "unconfined" {
		abs, err := filepath.Abs(*file) // the monitor is in another directory
		if err != nil {
			return nil, err
		}
		*file = abs
	}
	p, err := e.prepareLasting(ctx, o)
	if err != nil {
		return nil, err
	}
	e.unmounted(p.Container) // each start takes mounts and ids of its own
	p.forgetPlaces()
	os.Remove(p.IDs)
	p.IDs = ""
	if err := p.writeCreated(); err != nil {
		return nil, err
	}
	p.writeCIDFile()
	p.unlock()
	return p.Container, nil
}

// prepareLasting is Prepare of a container that the monitor keeps.
func (e *Engine) prepareLasting(ctx context.Context, o RunOptions) (*Prepared, error) {
	p, err := e.Prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	p.Lasting, p.Asked = true, o.Asked
	if err := e.setLog(p.Container); err != nil {
		p.Discard()
		return nil, err
	}
	return p, nil
}

// writeCreated writes down that the container is there. Without that it is
// discarded.
func (p *Prepared) writeCreated() error {
	p.passing = p.o.StartsNext
	if err := p.e.write(p.Container); err != nil {
		p.Discard()
		return err
	}
	p.letGCIn()
	p.e.Emit("create", p.Container, nil)
	return nil
}

// again makes the plan of a container that is there.
func (e *Engine) again(c *Container, o RunOptions) (*Prepared, error) {
	if o.Warn == nil {
		o.Warn = func(string) {}
	}
	p := &Prepared{e: e, o: o, Container: c, work: e.Store.Running(c.ID)}
	e.disconnect(c) // what a start had that was killed
	if c.IDs != "" {
		os.Remove(c.IDs)
		c.IDs = ""
	}
	if c.Wishes.Remove { // a start that failed has left a mark
		unmarkVolatile(e.WorkDir(c))
	}
	err := p.compile(c.Lower)
	if err != nil {
		p.freePorts()
		os.Remove(p.IDs)
	}
	return p, err
}
