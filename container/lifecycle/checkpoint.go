package lifecycle

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/criu"
	"kiste/container/hook"
	"kiste/container/plan"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
)

// CheckpointOptions say what CRIU is to save or to restore, and where. They are
// those of runc; see criu(8).
type CheckpointOptions struct {
	Images string // a directory; empty: "checkpoint" in the working directory
	Work   string // of CRIU's log; empty: the container's directory, or the images
	Parent string // images of a PreDump, relative to Images

	LeaveRunning   bool // the container goes on
	PreDump        bool // only memory is saved, and the container goes on
	TCPEstablished bool
	TCPSkip        bool // leave out connections that are being made
	LinkRemap      bool
	ExternalUnix   bool
	ShellJob       bool
	FileLocks      bool
	AutoDedup      bool
	LazyPages      bool
	StatusFD       int    // gets a zero byte when pages are waited for; 0: none
	PageServer     string // ADDRESS:PORT
	Cgroups        string // soft, full, strict, ignore; empty: soft
	EmptyNetwork   bool   // what is in the network namespace is not saved; so it is where hooks may have made it
	LSMProfile     string // TYPE:NAME, of a restore
	LSMMount       string // of a restore
}

// What a checkpoint has beside CRIU's images: the files behind descriptors 0, 1
// and 2, as runc writes it.
const descriptorsFile = "descriptors.json"

// configAnnotation names a configuration file of CRIU's in place of that of
// runc's; runc's word.
const configAnnotation = "org.criu.config"

// Checkpoint saves what the container does by CRIU, and removes it, unless it is
// to go on. One that neither runs nor is paused is fault.Conflict.
func (c *Container) Checkpoint(o CheckpointOptions) error {
	if s := c.Status(); s != specs.StateRunning && s != Paused {
		return &fault.Error{Op: "checkpoint container", On: c.doc.ID, Kind: fault.Conflict, Err: fmt.Errorf("cannot checkpoint a container that is %s", s)}
	}
	if err := c.dump(o); err != nil {
		return &fault.Error{Op: "checkpoint container", On: c.doc.ID, Err: err}
	}
	if o.LeaveRunning || o.PreDump {
		return nil
	}
	return c.Delete(true)
}

func (c *Container) dump(o CheckpointOptions) error {
	spec, err := c.spec()
	if err != nil {
		return err
	}
	if err := makeDir(o.images()); err != nil {
		return err
	}
	j, err := o.job(spec, "dump.log", c.dir)
	if err != nil {
		return err
	}
	defer j.Images.Close()
	defer j.Work.Close()
	pid := int32(c.doc.PID)
	r := j.Options
	r.Pid, r.Root, r.LeaveRunning = &pid, &c.doc.Rootfs, flag(o.LeaveRunning)
	r.TcpSkipInFlight, r.LinkRemap = flag(o.TCPSkip), flag(o.LinkRemap)
	if o.PreDump {
		j.Kind, r.TrackMem = rpc.CriuReqType_PRE_DUMP, flag(true)
	}
	if o.Parent != "" {
		r.ParentImg, r.TrackMem = &o.Parent, flag(true)
	}
	if o.PageServer != "" {
		if r.Ps, err = pageServer(o.PageServer); err != nil {
			return err
		}
	}
	if o.StatusFD > 0 {
		j.Status = os.NewFile(uintptr(o.StatusFD), "status")
	}
	mounts, err := c.externals(spec)
	if err != nil {
		return err
	}
	for _, e := range mounts {
		r.ExtMnt = append(r.ExtMnt, &rpc.ExtMountMap{Key: &e.at, Val: &e.at})
	}
	for _, ns := range spec.Linux.Namespaces {
		if key := externalNamespace(ns); key != "" {
			_, inode, err := sys.InodeOf(ns.Path)
			if err != nil {
				return err
			}
			r.External = append(r.External, fmt.Sprintf("%s[%d]:%s", namespace.File(string(ns.Type)), inode, key))
		}
	}
	if dir := c.freezer(); dir != "" {
		r.FreezeCgroup = &dir
	}
	if !o.PreDump {
		if err := c.saveDescriptors(j); err != nil {
			return err
		}
	}
	if r.FreezeCgroup == nil && c.Status() == Paused {
		return c.thawed(j.Do)
	}
	return j.Do()
}

// thawed does something to a paused container by a program that knows nothing
// of its freezer, and would wait for ever for processes that cannot move; they
// are stopped again if they are still there.
func (c *Container) thawed(do func() error) error {
	if err := c.Resume(); err != nil {
		return err
	}
	err := do()
	if c.Status() != specs.StateRunning {
		return err
	}
	return errors.Join(err, c.Pause())
}

func (o CheckpointOptions) images() string {
	if o.Images == "" {
		return "checkpoint"
	}
	return o.Images
}

func makeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return &fault.Error{Op: "make directory", On: dir, Err: err}
	}
	return nil
}

// job is what dump and restore have in common. The directory of images must be
// there. Work is where CRIU's log goes unless the options say another place.
func (o CheckpointOptions) job(spec *specs.Spec, log, work string) (*criu.Job, error) {
	mode, err := cgroupMode(o.Cgroups)
	if err != nil {
		return nil, err
	}
	level := int32(4)
	j := &criu.Job{Kind: rpc.CriuReqType_DUMP, Options: &rpc.CriuOpts{
		LogLevel: &level, LogFile: &log, TcpEstablished: flag(o.TCPEstablished), ExtUnixSk: flag(o.ExternalUnix), ShellJob: flag(o.ShellJob),
		FileLocks: flag(o.FileLocks), AutoDedup: flag(o.AutoDedup), LazyPages: flag(o.LazyPages), OrphanPtsMaster: flag(true),
		ManageCgroups: flag(mode != rpc.CriuCgMode_IGNORE), ManageCgroupsMode: &mode,
	}}
	if o.EmptyNetwork || hooksMakeNetwork(spec.Hooks) {
		network := uint32(cloneNewNet)
		j.Options.EmptyNs = &network
	}
	if file := spec.Annotations[configAnnotation]; file != "" {
		j.Options.ConfigFile = &file
	} else if _, err := os.Stat(runcConfig); err == nil {
		file := runcConfig
		j.Options.ConfigFile = &file
	}
	if j.Images, err = os.Open(o.images()); err != nil {
		return nil, &fault.Error{Op: "open images", On: o.images(), Err: err}
	}
	if j.Work, err = openDir(cmp.Or(o.Work, work)); err != nil {
		j.Images.Close()
		return nil, &fault.Error{Op: "open work directory", Err: err}
	}
	return j, nil
}

// hooksMakeNetwork says whether an engine may have made what is in the network
// namespace, by the hooks that also run when a container is restored, as Docker
// does: CRIU does not know the other ends of its links. (runc leaves the
// namespace empty always, so that without hooks not even loopback is up.)
func hooksMakeNetwork(h *specs.Hooks) bool {
	return len(hook.Of(h, hook.Prestart))+len(hook.Of(h, hook.CreateRuntime)) > 0
}

// openDir opens a directory, and makes it where it is missing.
func openDir(dir string) (*os.File, error) {
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	return os.Open(dir)
}

// runcConfig is where CRIU's options for runc's containers are.
const runcConfig = "/etc/criu/runc.conf"

const cloneNewNet = 0x40000000 // CLONE_NEWNET

func flag(v bool) *bool { return &v }

func cgroupMode(s string) (rpc.CriuCgMode, error) {
	for _, m := range []struct {
		name string
		mode rpc.CriuCgMode
	}{{"", rpc.CriuCgMode_SOFT}, {"soft", rpc.CriuCgMode_SOFT}, {"full", rpc.CriuCgMode_FULL}, {"strict", rpc.CriuCgMode_STRICT}, {"ignore", rpc.CriuCgMode_IGNORE}} {
		if m.name == s {
			return m.mode, nil
		}
	}
	return 0, &fault.Error{Op: "use option", On: "--manage-cgroups-mode " + s, Kind: fault.Invalid, Err: errors.New("invalid manage-cgroups-mode"), Hint: "soft, full, strict or ignore"}
}

func pageServer(s string) (*rpc.CriuPageServerInfo, error) {
	var port int32
	address, text, ok := strings.Cut(s, ":")
	if _, err := fmt.Sscan(text, &port); !ok || err != nil || port < 1 || port > 65535 {
		return nil, &fault.Error{Op: "use option", On: "--page-server " + s, Kind: fault.Invalid, Err: errors.New("use --page-server ADDRESS:PORT to specify page server")}
	}
	return &rpc.CriuPageServerInfo{Address: &address, Port: &port}, nil
}

// externalNamespace is the name in the images of a namespace that is not the
// container's own.
func externalNamespace(ns specs.LinuxNamespace) string {
	if ns.Path == "" {
		return ""
	}
	switch ns.Type {
	case specs.NetworkNamespace:
		return "extRootNetNS"
	case specs.PIDNamespace:
		return "extRootPidNS"
	}
	return ""
}

// freezer is the directory by which CRIU freezes the container; empty: it has
// none.
func (c *Container) freezer() string {
	l := c.doc.Hierarchies
	for _, h := range l.All() {
		if h.V2 && l.Kind() == "v2" || slices.Contains(h.Controllers, "freezer") {
			if dir := h.Dir(c.doc.Cgroup); isDir(dir) {
				return dir
			}
		}
	}
	return ""
}

// An external mount is one whose source is the host's: CRIU only makes sure
// that it is there.
type external struct {
	at     string // in the container, and its name in the images
	source string // on the host
	place  bool   // its mount point may have to be made
}

// externals are the external mounts of a container with this spec.
func (c *Container) externals(spec *specs.Spec) ([]external, error) {
	var all []external
	for _, m := range spec.Mounts {
		at := path.Join("/", m.Destination)
		switch {
		case m.Type == "cgroup":
			all = append(all, c.groupMounts(at)...)
		case isBind(m):
			all = append(all, external{at, m.Source, true})
		}
	}
	for _, at := range plan.NodeMounts(spec) {
		all = append(all, external{at, at, false})
	}
	for _, e := range all {
		// A name with these is more to CRIU than a name (CVE-2026-115520).
		if strings.Contains(e.at, "]:") {
			return nil, &fault.Error{Op: "save mount", On: e.at, Kind: fault.Unsupported, Err: errors.New("criu cannot tell such a path")}
		}
	}
	return all, nil
}

func isBind(m specs.Mount) bool {
	p, err := chroot.ParseOptions(m.Options)
	return m.Type == "bind" || err == nil && p.Bind
}

// groupMounts are those at /sys/fs/cgroup: of version 1 one for each hierarchy
// in which the container has a group.
func (c *Container) groupMounts(at string) []external {
	l := c.doc.Hierarchies
	if l.Kind() == "v2" {
		return []external{{at, l.Unified.Dir(c.doc.Cgroup), false}}
	}
	var all []external
	for _, h := range l.All() {
		if dir := h.Dir(c.doc.Cgroup); isDir(dir) {
			all = append(all, external{path.Join(at, path.Base(h.Mount)), dir, false})
		}
	}
	return all
}

// saveDescriptors writes down what descriptors 0, 1 and 2 are, so that a restore
// can give others in their place. What lies on no mount of the container's is
// external to CRIU.
func (c *Container) saveDescriptors(j *criu.Job) error {
	names := make([]string, 3)
	for i := range names {
		name, outside, err := c.doc.process().Descriptor(i)
		if err != nil {
			return err
		}
		if outside {
			j.Options.External = append(j.Options.External, name)
		}
		names[i] = name
	}
	text, err := json.Marshal(names)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(j.Images.Name(), descriptorsFile), text, 0o600)
}
