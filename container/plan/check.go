package plan

import (
	"errors"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
)

// Bounds of what one container may ask for: beyond them a document is a
// mistake or an attack, and its plan would take the memory of this process.
const (
	maxMounts = 10_000
	maxPaths  = 10_000 // masked ones, and read-only ones
	maxWords  = 4_000  // options of a mount
	maxNames  = 1_000  // capabilities of a set, and limits
	maxGroups = 65_536 // NGROUPS_MAX of setgroups(2)
	maxPath   = 4_096  // PATH_MAX of the kernel
	maxCalls  = 200_000
)

// check refuses what later steps would trip over. The words of an error are
// runc's where it has some.
func (c *compiler) check() error {
	for _, part := range []func() error{c.checkProcess, c.checkRoot, c.checkBounds, c.checkMounts, c.checkNames, c.checkLabels, c.checkAttributes, c.checkTime, c.checkNetDevices, c.checkListener, c.checkUnsupported} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (c *compiler) checkProcess() error {
	p := c.spec.Process
	switch {
	case p == nil:
		return refused("process", fault.Invalid, "process property must not be empty")
	case len(p.Args) == 0:
		return refused("process.args", fault.Invalid, "args must not be empty")
	case p.Cwd == "":
		return refused("process.cwd", fault.Invalid, "Cwd property must not be empty")
	case !path.IsAbs(p.Cwd):
		return refused("process.cwd", fault.Invalid, "Cwd must be an absolute path")
	case p.Terminal && p.ConsoleSize != nil && (p.ConsoleSize.Height > 65535 || p.ConsoleSize.Width > 65535):
		return refused("process.consoleSize", fault.Invalid, "a terminal has at most 65535 rows and columns")
	}
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.Cwd}) {
		if hasZero(s) {
			return refused("process", fault.Invalid, "%.100q has a zero byte", s)
		}
	}
	return c.checkEnv()
}

func (c *compiler) checkEnv() error {
	for _, e := range c.spec.Process.Env {
		switch name, _, has := strings.Cut(e, "="); {
		case !has:
			return refused("process.env", fault.Invalid, "invalid environment variable: missing '='")
		case name == "":
			return refused("process.env", fault.Invalid, "invalid environment variable: name cannot be empty")
		}
	}
	return nil
}

func (c *compiler) checkRoot() error {
	switch {
	case c.spec.Root == nil:
		return refused("root", fault.Invalid, "root must be specified")
	}
	if (len(c.linux.MaskedPaths) > 0 || len(c.linux.ReadonlyPaths) > 0) && !c.hasNamespace(specs.MountNamespace) {
		return refused("linux.maskedPaths", fault.Invalid, "unable to restrict sys entries without a private MNT namespace")
	}
	if p := c.linux.RootfsPropagation; p != "" && propagationOf(p) == 0 {
		return refused("linux.rootfsPropagation", fault.Invalid, "rootfsPropagation=%v is not supported", p)
	}
	return nil
}

func (c *compiler) checkBounds() error {
	for _, b := range []struct {
		field     string
		have, max int
	}{
		{"mounts", len(c.spec.Mounts), maxMounts},
		{"linux.devices", len(c.linux.Devices), maxMounts},
		{"linux.maskedPaths", len(c.linux.MaskedPaths), maxPaths},
		{"linux.readonlyPaths", len(c.linux.ReadonlyPaths), maxPaths},
		{"linux.sysctl", len(c.linux.Sysctl), maxPaths},
		{"linux.namespaces", len(c.linux.Namespaces), len(namespace.Kinds())},
		{"process.rlimits", len(c.spec.Process.Rlimits), maxNames},
		{"process.user.additionalGids", len(c.spec.Process.User.AdditionalGids), maxGroups},
		{"process.capabilities", c.mostCaps(), maxNames},
	} {
		if b.have > b.max {
			return refused(b.field, fault.Invalid, "there are %d, and %d are the most", b.have, b.max)
		}
	}
	return c.checkPaths()
}

// mostCaps is the length of the longest set of capabilities.
func (c *compiler) mostCaps() int {
	sets := c.spec.Process.Capabilities
	if sets == nil {
		return 0
	}
	return max(len(sets.Bounding), len(sets.Permitted), len(sets.Effective), len(sets.Inheritable), len(sets.Ambient))
}

// checkPaths refuses paths that no kernel takes.
func (c *compiler) checkPaths() error {
	var err error
	check := func(field string, paths ...string) {
		for _, p := range paths {
			if err == nil && (len(p) >= maxPath || hasZero(p)) {
				err = refused(field, fault.Invalid, "%.100q is no path: it has a zero byte or more than %d", p, maxPath-1)
			}
		}
	}
	check("process.cwd", c.spec.Process.Cwd)
	check("root.path", c.spec.Root.Path)
	check("linux.maskedPaths", c.linux.MaskedPaths...)
	check("linux.readonlyPaths", c.linux.ReadonlyPaths...)
	for i := range c.spec.Mounts {
		m := &c.spec.Mounts[i]
		check("mounts", m.Destination, m.Source, m.Type)
	}
	for i := range c.linux.Devices {
		check("linux.devices", c.linux.Devices[i].Path)
	}
	for i := range c.linux.Namespaces {
		check("linux.namespaces", c.linux.Namespaces[i].Path)
	}
	return err
}

// A mount is one of the spec's, with its options sorted.
type mount struct {
	specs.Mount
	chroot.Parsed
	at       string // where in the container: absolute and clean
	field    string
	bind     bool
	copyUp   bool
	detached Slot
	group    cgroupMount
}

func (c *compiler) checkMounts() error {
	c.mounts = make([]mount, 0, len(c.spec.Mounts))
	for i, m := range c.spec.Mounts {
		checked, err := c.checkMount(m)
		if err != nil {
			return refused("mounts["+strconv.Itoa(i)+"] on "+m.Destination, fault.Invalid, "%w", err)
		}
		c.mounts = append(c.mounts, checked)
	}
	return nil
}

func inProc(at string) bool { return at == "/proc" || strings.HasPrefix(at, "/proc/") }

var errNoType = errors.New("it has no type")

func (c *compiler) checkMount(m specs.Mount) (mount, error) {
	out := mount{Mount: m, at: path.Clean("/" + m.Destination), field: "mounts." + m.Destination}
	if slices.ContainsFunc(m.Options, hasZero) {
		return out, errors.New("mount field contains null byte")
	}
	if !path.IsAbs(m.Destination) {
		c.warn("mount destination %s is not absolute: it is taken from the root", m.Destination)
	}
	if len(m.Options) > maxWords {
		return out, errors.New("it has too many options")
	}
	words := slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool { return o == "tmpcopyup" })
	out.copyUp = len(words) < len(m.Options)
	var err error
	if out.Parsed, err = chroot.ParseOptions(words); err != nil {
		return out, err
	}
	out.bind = m.Type == "bind" || out.Bind
	if out.bind {
		c.dropData(&out)
	}
	switch {
	case out.at == "/":
		return out, errors.New("mountpoint is on the top of rootfs")
	case !out.bind && m.Type == "":
		return out, errNoType
	case out.bind && slices.ContainsFunc(out.Data, isWord):
		return out, errors.New("bind mounts cannot have any filesystem-specific options applied")
	case out.copyUp && m.Type != "tmpfs":
		return out, errors.New("tmpcopyup is for tmpfs alone")
	case out.copyUp && !c.f.Host:
		return out, errors.New("tmpcopyup takes powers over the mounts of the host, which this user has not")
	}
	if out.bind {
		// Whatever else it says: runc takes the option's word.
		out.Type, out.Source = "bind", c.abs(m.Source)
	}
	return out, errors.Join(c.checkProc(out), c.checkIDMap(&out))
}

// isWord says whether an option is a word alone, which on a bind mount may be a
// misspelt one of those that protect.
func isWord(o string) bool { return !strings.Contains(o, "=") }

// dropData drops a bind mount's options of file systems, mode=755 or size=1k: they
// are for mount(2)'s data (runtime-spec, config.md, Linux mount options), which
// the kernel does not look at for a bind mount. crun drops them without a
// word, runc since 1.2 refuses them.
func (c *compiler) dropData(m *mount) {
	m.Data = slices.DeleteFunc(slices.Clone(m.Data), func(o string) bool {
		drop := !isWord(o) && !strings.HasPrefix(o, subpathOption)
		if drop {
			c.warn("bind mount %s: option %s is a file system's and changes nothing", m.Destination, o)
		}
		return drop
	})
}

func hasZero(s string) bool { return strings.IndexByte(s, 0) >= 0 }

// onProc are the files of procfs that lxcfs and others replace; nothing else
// may be mounted there (CVE-2019-16884).
var onProc = []string{"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime", "/proc/loadavg", "/proc/slabinfo",
	"/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled"}

func (c *compiler) checkProc(m mount) error {
	switch {
	case m.at == "/proc":
		if m.Type != "proc" && (!m.bind || path.Clean(m.Source) != "/proc") {
			return errors.New(`"/proc" cannot be mounted because it is not of type proc`)
		}
	case inProc(m.at) && !slices.Contains(onProc, m.at):
		return errors.New(strconv.Quote(m.at) + " cannot be mounted because it is inside /proc")
	}
	return nil
}

func (c *compiler) checkIDMap(m *mount) error {
	if len(m.UIDMappings)+len(m.GIDMappings) == 0 && m.IDMap == "" {
		return nil
	}
	switch {
	case !m.bind && m.Type != "overlay":
		return errors.New("id-mapped mounts are only supported for bind-mounts")
	case !c.f.Host:
		return errors.New("id-mapped mounts are not supported for rootless containers")
	case (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0):
		return errors.New("id-mapped mounts must have both uid and gid mappings specified")
	case len(m.UIDMappings) == 0 && !c.hasNamespace(specs.UserNamespace):
		return errors.New("id-mapped mounts must have both uid and gid mappings specified, or the container a user namespace")
	}
	return nil
}

func (c *compiler) hasNamespace(kind specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(c.linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == kind })
}

func (c *compiler) checkNames() error {
	uts := c.hasNamespace(specs.UTSNamespace)
	switch {
	case c.spec.Hostname != "" && !uts:
		return refused("hostname", fault.Invalid, "unable to set hostname without a private UTS namespace")
	case c.spec.Domainname != "" && !uts:
		return refused("domainname", fault.Invalid, "unable to set domainname without a private UTS namespace")
	}
	return c.checkSysctls()
}

func (c *compiler) checkLabels() error {
	p := c.spec.Process
	switch {
	case p.SelinuxLabel != "" && !has(c.f.SELinux):
		return refused("process.selinuxLabel", fault.Unsupported, "selinux label is specified in config, but selinux is disabled or not supported")
	case c.linux.MountLabel != "" && !has(c.f.SELinux):
		return refused("linux.mountLabel", fault.Unsupported, "selinux is disabled or not supported")
	case p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" && !has(c.f.AppArmor):
		return refused(ProfileField, fault.Unsupported, "apparmor: config provided but apparmor not supported")
	case c.confined() && c.f.Profile != nil && !c.f.Profile(p.ApparmorProfile):
		return refused(ProfileField, fault.NotFound, "apparmor failed to apply profile: %s is not loaded (apparmor_parser -r FILE does)", p.ApparmorProfile)
	}
	return nil
}

func (c *compiler) checkUnsupported() error {
	l := c.linux
	for _, f := range []struct {
		field string
		given bool
	}{
		{"linux.intelRdt", l.IntelRdt != nil && len(c.f.ClassTasks) == 0},
	} {
		if f.given {
			return refused(f.field, fault.Unsupported, "this version cannot")
		}
	}
	return nil
}
