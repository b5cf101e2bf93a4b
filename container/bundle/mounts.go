package bundle

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// defaultShm is the size of /dev/shm in bytes.
const defaultShm = 64 << 20

// mounts are the kernel's file systems, then the user's, the image's volumes
// and the files, the shorter paths first.
func (c *compiler) mounts() error {
	mine, err := c.userMounts()
	if err != nil {
		return err
	}
	targets := map[string]bool{}
	for _, m := range mine {
		if targets[m.Target] {
			return badOption(m.Option, fault.Conflict, fmt.Errorf("Duplicate mount point: %s", m.Target))
		}
		targets[m.Target] = true
	}
	for _, m := range slices.Concat(c.standardMounts(), c.systemMounts()) {
		if m.Type == "" || targets[m.Destination] || targets["/dev"] && strings.HasPrefix(m.Destination, "/dev/") {
			continue
		}
		if m.Type == "shm" {
			c.Volumes = append(c.Volumes, Volume{Index: len(c.Spec.Mounts), Mount: Mount{Type: "shm", Source: m.Source, Target: m.Destination}})
		}
		c.addMount(m, "default")
	}
	mine = append(mine, c.files(targets)...)
	slices.SortStableFunc(mine, func(a, b Mount) int { return strings.Count(a.Target, "/") - strings.Count(b.Target, "/") })
	for _, m := range mine {
		c.userMount(m)
	}
	if c.w.Init && !c.w.PID.shared() {
		// All may run it, whoever it belongs to in there; where it lies is a tmpfs,
		// which kernels before 6.3 do not map.
		c.addMount(specs.Mount{Destination: InitPath, Type: "bind", Source: c.host.Init, Options: []string{"bind", "ro"}}, "--init")
	}
	return nil
}

func (c *compiler) addMount(m specs.Mount, from string) {
	c.Spec.Mounts = append(c.Spec.Mounts, m)
	c.Origin["mounts."+m.Destination] = from
}

// userMounts are the user's and the image's volumes that nobody covers.
func (c *compiler) userMounts() ([]Mount, error) {
	mine := slices.Clone(c.w.Mounts)
	volumes := make([]string, 0, len(c.image.Volumes))
	for v := range c.image.Volumes {
		volumes = append(volumes, v)
	}
	slices.Sort(volumes)
	for i, v := range volumes {
		m := Mount{Type: "volume", Target: path.Clean("/" + v), Option: "image: Volumes", Text: v}
		if slices.Contains(volumes[:i], m.Target) || slices.ContainsFunc(mine, func(u Mount) bool { return u.Target == m.Target }) {
			continue
		}
		if err := checkMount(&m); err != nil {
			return nil, badImage("Volumes", err)
		}
		if top := strings.Split(m.Target, "/")[1]; top == "proc" || top == "sys" || m.Target == "/dev" {
			return nil, badImage("Volumes", fmt.Errorf("a volume on %q would hide the kernel's own", m.Target))
		}
		mine = append(mine, m)
	}
	return mine, nil
}

// standardMounts are Docker's. What the kernel would refuse, since the
// namespace belongs to another user namespace, is the host's by a bind; one
// without a type is left out.
func (c *compiler) standardMounts() []specs.Mount {
	quiet := []string{"nosuid", "noexec", "nodev"}
	shm := c.w.ShmSize
	if shm == 0 {
		shm = defaultShm
	}
	ro, deep := []string{"ro"}, []string{"rro"}
	if c.w.Privileged {
		ro, deep = nil, nil
	}
	groups := ro
	if c.System {
		groups = nil // its init makes groups of its own
	}
	bind := func(dir string, more ...string) specs.Mount {
		return specs.Mount{Destination: dir, Type: "bind", Source: dir, Options: slices.Concat([]string{"rbind"}, quiet, more)}
	}
	mounts := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: quiet},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: c.devptsOptions()},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: slices.Concat(quiet, ro)},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: slices.Concat(groups, quiet)},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: quiet},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: slices.Concat(quiet, []string{"mode=1777", "size=" + strconv.FormatInt(shm, 10)})},
	}
	if !c.mountable(c.w.PID) {
		mounts[0] = bind("/proc")
	}
	if !c.mountable(c.w.Network) {
		mounts[3] = bind("/sys", deep...)
	}
	if !c.mountable(c.w.CgroupNS) {
		// Never writable (CVE-2023-25809).
		mounts[4] = bind("/sys/fs/cgroup", "rro")
	}
	if !c.mountable(c.w.IPC) {
		mounts[5] = specs.Mount{}
		if c.host.MessageQueue {
			mounts[5] = bind("/dev/mqueue")
		}
	}
	switch c.w.IPC.Kind {
	case None:
		mounts = mounts[:6]
	case HostNS:
		mounts[6] = bind("/dev/shm")
	case Container:
		mounts[6] = specs.Mount{Destination: "/dev/shm", Type: "shm", Source: c.w.IPC.Of, Options: slices.Concat([]string{"rbind"}, quiet)}
	}
	return mounts
}

// devptsOptions have gid 5, tty's, where the container has such a group.
func (c *compiler) devptsOptions() []string {
	o := []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}
	if c.lastGID() >= 5 {
		o = append(o, "gid=5")
	}
	return o
}

// userMount adds one that is not the kernel's.
func (c *compiler) userMount(m Mount) {
	from := strings.TrimSpace(m.Option + " " + m.Text)
	switch m.Type {
	case "tmpfs":
		c.addMount(specs.Mount{Destination: m.Target, Type: "tmpfs", Source: "tmpfs", Options: tmpfsOptions(m)}, from)
		return
	case "file":
		c.Files = append(c.Files, File{Path: m.Target, Data: []byte(m.Source), Index: len(c.Spec.Mounts)})
		m.Source = ""
	case "volume", "image":
		c.Volumes = append(c.Volumes, Volume{Index: len(c.Spec.Mounts), Mount: m, Anonymous: m.Type == "volume" && m.Source == ""})
		m.ReadOnly = m.ReadOnly || m.Type == "image"
	}
	c.propagate(m.Propagation)
	spec := specs.Mount{Destination: m.Target, Type: m.Type, Source: m.Source, Options: bindOptions(m)}
	if c.userNS && c.host.Root && m.Type != "file" {
		// Its cgroup has no list of devices, since it can make none; here
		// somebody else may have made them.
		spec.Options = append(spec.Options, map[bool]string{true: "rnodev", false: "nodev"}[slices.Contains(spec.Options, "rbind")])
	}
	if !m.NoIDMap {
		spec = c.mapped(spec)
	}
	c.addMount(spec, from)
}

func bindOptions(m Mount) []string {
	options := []string{"rbind"}
	if m.NonRecursive || m.Type == "file" {
		options = []string{"bind"}
	}
	if m.ReadOnly {
		// Every kernel that Kiste runs on can make a whole tree read-only.
		deep := !m.WritableBelow && !slices.Contains(options, "bind")
		options = append(options, map[bool]string{true: "rro", false: "ro"}[deep])
	}
	propagation := m.Propagation
	if propagation == "" {
		propagation = "rprivate"
	}
	return append(options, propagation)
}

// mapped makes a bind show its owners as they are on the host: uid 1000 stays
// 1000, although the container's 1000 is another one outside.
func (c *compiler) mapped(m specs.Mount) specs.Mount {
	if !c.userNS || !c.host.Root || !c.host.IDMapped {
		return m
	}
	m.UIDMappings, m.GIDMappings = c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings
	if !c.newNS {
		m.UIDMappings, m.GIDMappings = c.host.UIDs, c.host.GIDs
	}
	if len(m.UIDMappings) == 0 {
		return m
	}
	option := "ridmap"
	if slices.Contains(m.Options, "bind") {
		option = "idmap"
	}
	m.Options = append(slices.Clone(m.Options), option)
	return m
}

// propagate makes the root's propagation as wide as its widest bind's.
func (c *compiler) propagate(p string) {
	root := &c.Spec.Linux.RootfsPropagation
	switch strings.TrimPrefix(p, "r") {
	case "shared":
		*root = "shared"
	case "slave":
		if *root != "shared" {
			*root = "rslave"
		}
	}
}

// tmpfsOptions begin with Docker's defaults, which the user's override.
func tmpfsOptions(m Mount) []string {
	o := []string{"noexec", "nosuid", "nodev", "rprivate"}
	if m.ReadOnly {
		o = append(o, "ro")
	}
	if m.TmpfsMode != 0 {
		o = append(o, "mode="+strconv.FormatUint(uint64(m.TmpfsMode), 8))
	}
	if m.TmpfsSize != 0 {
		o = append(o, "size="+strconv.FormatInt(m.TmpfsSize, 10))
	}
	return mergeOptions(append(o, m.TmpfsOptions...))
}

// paths are masked and read-only as in Docker.
func (c *compiler) paths() error {
	if c.w.Privileged || c.w.Security.SystemPaths {
		c.Origin["linux.maskedPaths"] = origin(c.w.Privileged, "--privileged")
		if c.w.Security.SystemPaths {
			c.Origin["linux.maskedPaths"] = "--security-opt systempaths"
		}
		c.Origin["linux.readonlyPaths"] = c.Origin["linux.maskedPaths"]
		return nil
	}
	c.Spec.Linux.MaskedPaths = append([]string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
		"/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats",
		"/sys/devices/virtual/powercap", "/sys/firmware",
	}, c.host.Thermal...)
	c.Spec.Linux.ReadonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	return nil
}

// files are those that Docker makes for every container, unless the user
// mounts something there.
func (c *compiler) files(taken map[string]bool) []Mount {
	var files []Mount
	for _, f := range []struct{ path, data string }{
		{"/etc/resolv.conf", c.resolvConf()},
		{"/etc/hostname", c.name + "\n"},
		{"/etc/hosts", c.hosts()},
	} {
		if !taken[f.path] {
			files = append(files, Mount{Type: "file", Target: f.path, Source: f.data, ReadOnly: c.w.ReadOnly, Option: "default"})
		}
	}
	return files
}

func (c *compiler) hosts() string {
	var b strings.Builder
	if kind := c.w.Network.Kind; (kind == HostNS || kind == Container) && len(c.host.Hosts) > 0 {
		b.Write(c.host.Hosts)
		if !strings.HasSuffix(b.String(), "\n") {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	for _, h := range c.w.Hosts {
		ips := []string{h.IP}
		if h.IP == "host-gateway" {
			ips = c.gateways()
		}
		for _, ip := range ips {
			b.WriteString(ip + "\t" + h.Name + "\n")
		}
	}
	for _, a := range c.host.Addresses {
		b.WriteString(a + "\t" + HostsNames(c.name, c.w.Domainname) + "\n")
	}
	return b.String()
}

// HostsNames are those that /etc/hosts has for a container's own addresses.
func HostsNames(name, domain string) string {
	if domain == "" {
		return name
	}
	return name + "." + domain + " " + name
}

// gateways are where the host is reached. What has no network of its own, or
// none that leads to the host, has but itself.
func (c *compiler) gateways() []string {
	if len(c.host.Gateways) == 0 {
		return []string{"127.0.0.1"}
	}
	return c.host.Gateways
}

// resolvConf is the host's, with what the user says in place of its lines. Who
// has a resolver asks that, which knows the servers.
func (c *compiler) resolvConf() string {
	var b strings.Builder
	skip := map[string]bool{
		"nameserver": len(c.w.DNS) > 0 || c.host.Resolver,
		"search":     len(c.w.DNSSearch) > 0, "domain": len(c.w.DNSSearch) > 0,
		"options": len(c.w.DNSOptions) > 0 || c.host.Resolver,
	}
	servers := c.w.DNS
	options := slices.Clone(c.w.DNSOptions)
	if c.host.Resolver {
		servers = []string{ResolverAddress}
		if len(options) == 0 {
			options = hostOptions(c.host.ResolvConf)
		}
		if !slices.ContainsFunc(options, func(o string) bool { return strings.HasPrefix(o, "ndots:") }) {
			options = append(options, "ndots:0")
		}
	}
	own := c.ownNetwork()
	for line := range strings.Lines(string(c.host.ResolvConf)) {
		f := strings.Fields(line)
		if len(f) == 0 || skip[f[0]] || own && f[0] == "nameserver" && len(f) > 1 && onLoopback(f[1]) {
			continue // what listens on the host's loopback is not reached
		}
		b.WriteString(strings.TrimRight(line, "\r\n") + "\n")
	}
	for _, s := range servers {
		b.WriteString("nameserver " + s + "\n")
	}
	if s := strings.Join(c.w.DNSSearch, " "); s != "" && s != "." {
		b.WriteString("search " + s + "\n")
	}
	if len(options) > 0 {
		b.WriteString("options " + strings.Join(options, " ") + "\n")
	}
	return b.String()
}

// ResolverConf is the resolv.conf of a container that asks at ResolverAddress; of
// the host's it keeps what is not said anew.
func ResolverConf(w *Wishes, host []byte) string {
	c := compiler{w: w, host: &Facts{ResolvConf: host, Resolver: true}}
	return c.resolvConf()
}

// ownNetwork reports whether the container has a way out that is not the host's
// own.
func (c *compiler) ownNetwork() bool { return c.w.Network.Kind == Bridge }

func onLoopback(server string) bool { return strings.HasPrefix(server, "127.") || server == "::1" }

// OnlyLoopback reports whether a resolv.conf names only servers on the host's
// loopback, or none.
func OnlyLoopback(resolvConf []byte) bool {
	for line := range strings.Lines(string(resolvConf)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" && !onLoopback(f[1]) {
			return false
		}
	}
	return true
}

// hostOptions are the options of a resolv.conf.
func hostOptions(resolvConf []byte) []string {
	var all []string
	for line := range strings.Lines(string(resolvConf)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "options" {
			all = append(all, f[1:]...)
		}
	}
	return all
}
