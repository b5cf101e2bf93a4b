package bundle

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// namespaces decides for each kind: a new one, another's, or the host's. There
// is no time namespace: without an offset it would change nothing.
func (c *compiler) namespaces() error {
	user, err := c.userNamespace()
	if err != nil {
		return err
	}
	c.userNS = user.Kind != HostNS
	c.newNS = c.userNS && !user.shared()
	for _, n := range []struct {
		kind   specs.LinuxNamespaceType
		wish   Namespace
		option string
	}{
		{specs.PIDNamespace, c.w.PID, "--pid"},
		{specs.NetworkNamespace, c.w.Network, "--network"},
		{specs.IPCNamespace, c.w.IPC, "--ipc"},
		{specs.UTSNamespace, c.w.UTS, "--uts"},
		{specs.MountNamespace, Namespace{}, ""},
		{specs.CgroupNamespace, c.w.CgroupNS, "--cgroupns"},
		{specs.UserNamespace, user, "--userns"},
	} {
		c.Origin["linux.namespaces."+string(n.kind)] = origin(n.wish.Kind != Default, n.option)
		if n.wish.Kind == HostNS {
			continue
		}
		if n.wish.Kind == Container {
			c.Joins = append(c.Joins, Join{len(c.Spec.Linux.Namespaces), n.wish.Of})
		}
		ns := specs.LinuxNamespace{Type: n.kind}
		if n.wish.Kind == Path {
			ns.Path = n.wish.Of
		}
		c.Spec.Linux.Namespaces = append(c.Spec.Linux.Namespaces, ns)
	}
	switch {
	case c.w.Network.Kind == Default:
		c.Origin["linux.namespaces.network"] = "default: none"
	case len(c.w.Networks) == 1 && c.w.Networks[0].Name == Bridge:
		c.Origin["linux.namespaces.network"] = "bridge"
	}
	if c.newNS {
		return c.idMaps(user)
	}
	return nil
}

// userNamespace is the wish for one, with the default filled in.
func (c *compiler) userNamespace() (Namespace, error) {
	wish := c.w.UserNS
	if from := c.w.UserFrom(c.host.Root); from != "" {
		wish = Namespace{Container, from}
	}
	switch {
	case wish.Kind == HostNS && !c.host.Root:
		return Namespace{}, badOption("--userns", fault.Denied, errors.New("only root can do without a user namespace"))
	case wish.Kind == KeepID && c.host.Root:
		return Namespace{}, badOption("--userns", fault.Conflict, errors.New("keep-id is for ordinary users: root would stay root"))
	case wish.Kind != Default:
	case c.w.Privileged && c.host.Root:
		return Namespace{Kind: HostNS}, nil
	default:
		wish = Namespace{Kind: Private}
	}
	if wish.Kind != HostNS && !wish.shared() && !c.host.UserNS {
		if c.w.UserNS.Kind != Default || !c.host.Root {
			return Namespace{}, badOption("--userns", fault.Unsupported, errors.New("this host makes no user namespaces"))
		}
		c.Warnings = append(c.Warnings, "this host makes no user namespaces: root in the container is root")
		return Namespace{Kind: HostNS}, nil
	}
	return wish, nil
}

// idMaps of a new user namespace.
func (c *compiler) idMaps(user Namespace) error {
	if len(c.host.UIDs) == 0 || len(c.host.GIDs) == 0 {
		return &fault.Error{Op: "make a user namespace", Kind: fault.Unsupported, Err: errors.New("there are no ids for it")}
	}
	uids, gids := c.host.UIDs, c.host.GIDs
	if user.Kind == KeepID {
		uids, gids = keepID(uids, c.host.UID), keepID(gids, c.host.GID)
	}
	c.Spec.Linux.UIDMappings, c.Spec.Linux.GIDMappings = uids, gids
	c.Origin["linux.uidMappings"] = origin(c.w.UserNS.Kind != Default, "--userns")
	c.Origin["linux.gidMappings"] = c.Origin["linux.uidMappings"]
	return nil
}

// keepID maps id to itself, and the other ids of the map around it, as podman
// does: 0 to id-1 are the first of them, id+1 and on are the rest.
func keepID(maps []specs.LinuxIDMapping, id uint32) []specs.LinuxIDMapping {
	out := []specs.LinuxIDMapping{{ContainerID: id, HostID: id, Size: 1}}
	next := uint32(0) // the next id inside
	for _, m := range maps {
		start, size := m.HostID, m.Size
		if start == id && size == 1 {
			continue
		}
		if before := min(size, id-min(id, next)); before > 0 {
			out = append(out, specs.LinuxIDMapping{ContainerID: next, HostID: start, Size: before})
			next, start, size = next+before, start+before, size-before
		}
		if next == id {
			next++
		}
		if size > 0 {
			out = append(out, specs.LinuxIDMapping{ContainerID: next, HostID: start, Size: size})
			next += size
		}
	}
	return out
}

// names are the host's and the NIS domain's inside.
func (c *compiler) names() error {
	c.name = short(c.host.ID)
	uts := c.w.UTS.Kind
	if uts == HostNS || uts == Path {
		if c.w.Hostname != "" {
			return badOption("--hostname", fault.Conflict, errors.New("conflicting options: hostname and the UTS mode"))
		}
		if c.w.Domainname != "" {
			return badOption("--domainname", fault.Conflict, errors.New("conflicting options: domainname and the UTS mode"))
		}
		c.name, c.HostName = c.host.HostName, c.host.HostName
		return nil
	}
	if c.w.Network.Kind == Container && c.w.Hostname != "" {
		return badOption("--hostname", fault.Conflict, errors.New("conflicting options: hostname and the network mode"))
	}
	if c.w.Network.Kind == HostNS && c.w.Hostname == "" && c.host.HostName != "" {
		c.name = c.host.HostName
		c.Origin["hostname"] = "--network host"
	}
	if c.w.Hostname != "" {
		c.name = c.w.Hostname
		c.Origin["hostname"] = "--hostname"
	}
	if err := checkHostName(c.name); err != nil {
		return badOption("--hostname", fault.Invalid, err)
	}
	if err := checkHostName(c.w.Domainname); err != nil {
		return badOption("--domainname", fault.Invalid, err)
	}
	c.Spec.Hostname, c.Spec.Domainname = c.name, c.w.Domainname
	c.Origin["domainname"] = origin(c.w.Domainname != "", "--domainname")
	return nil
}

// checkHostName refuses what sethostname(2) or a line of /etc/hosts would.
func checkHostName(s string) error {
	if len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return fmt.Errorf("invalid hostname format: %q: want at most 64 characters without blanks", s)
	}
	return nil
}

// mountable reports whether the kernel lets the container mount the file
// system of a namespace: it must belong to the container's user namespace.
func (c *compiler) mountable(n Namespace) bool {
	return !c.userNS || !n.shared() || n.Kind == Container && n.Of == c.w.UserFrom(c.host.Root)
}

// sysctls are Docker's defaults for a network of one's own, and the user's.
func (c *compiler) sysctls() error {
	s := map[string]string{}
	if !c.w.Network.shared() {
		// Ports below 1024 and ping need no privilege: the network is the
		// container's own.
		s["net.ipv4.ip_unprivileged_port_start"] = "0"
		s["net.ipv4.ping_group_range"] = "0 " + strconv.FormatUint(uint64(c.lastGID()), 10)
	}
	for name, value := range c.w.Sysctl {
		if err := c.ownSysctl(name); err != nil {
			return badOption("--sysctl", fault.Conflict, err)
		}
		s[name] = value
		c.Origin["linux.sysctl."+name] = "--sysctl"
	}
	c.Spec.Linux.Sysctl = s
	return nil
}

// ownSysctl refuses a sysctl that is not the container's alone.
func (c *compiler) ownSysctl(name string) error {
	wish := map[specs.LinuxNamespaceType]Namespace{
		specs.NetworkNamespace: c.w.Network, specs.IPCNamespace: c.w.IPC, specs.UTSNamespace: c.w.UTS,
	}
	kind := sysctlSpace(name)
	switch {
	case kind == "":
		return fmt.Errorf("sysctl '%s' is not allowed: it is not in a separate kernel namespace", name)
	case wish[kind].Kind == HostNS:
		return fmt.Errorf("sysctl '%s' is not allowed in the host's %s namespace", name, kind)
	case name == "kernel.domainname" && c.w.Domainname != "":
		return fmt.Errorf("sysctl '%s' and --domainname are the same", name)
	}
	return nil
}

// lastGID is the last of the group ids from 0 on that the container can name:
// a sysctl with others would be refused.
func (c *compiler) lastGID() uint32 {
	if !c.userNS {
		return maxID
	}
	maps := c.Spec.Linux.GIDMappings
	if !c.newNS {
		maps = c.host.GIDs
	}
	next := uint32(0)
	for range maps {
		for _, m := range maps {
			if m.ContainerID == next && m.Size > 0 {
				next += m.Size
			}
		}
	}
	if next == 0 {
		return 0
	}
	return next - 1
}

// cgroupsPath is where the container's cgroup is.
func (c *compiler) cgroupsPath() error {
	parent, from := c.w.CgroupParent, "--cgroup-parent"
	if parent == "" {
		parent, from = c.host.CgroupParent, "default"
	}
	if parent == "" {
		parent = "/kiste"
	}
	if hasZero(parent) {
		return badOption("--cgroup-parent", fault.Invalid, errors.New("it has a zero byte"))
	}
	c.Spec.Linux.CgroupsPath = path.Join("/", parent, c.host.ID)
	c.Origin["linux.cgroupsPath"] = from
	return nil
}
