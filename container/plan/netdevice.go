package plan

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
)

func (c *compiler) checkNetDevices() error {
	no := func(format string, args ...any) error {
		return refused("linux.netDevices", fault.Invalid, format, args...)
	}
	switch {
	case len(c.linux.NetDevices) == 0:
		return nil
	case !c.hasNamespace(specs.NetworkNamespace):
		return no("unable to move network devices without a NET namespace")
	case !c.f.Host:
		return no("network devices are not supported for rootless containers")
	}
	for _, name := range slices.Sorted(maps.Keys(c.linux.NetDevices)) {
		for _, n := range []string{name, c.linux.NetDevices[name].Name} {
			if n != "" && !validDevice(n) || name == "" {
				return no("invalid network device name %q", n)
			}
		}
	}
	return nil
}

// validDevice is the kernel's rule (dev_valid_name).
func validDevice(name string) bool {
	return len(name) < 16 && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r\x00")
}

// bornInNetwork reports whether the child is in its network from the beginning.
func (c *compiler) bornInNetwork() bool {
	return c.p.Flags&unix.CLONE_NEWNET != 0 || !c.fresh["network"] && !c.joined["network"]
}

// links lets the parent bring the container onto its networks and give it links
// of the host, in the network where the child is by now.
func (c *compiler) links() {
	if len(c.linux.NetDevices)+len(c.o.Network.Endpoints) == 0 {
		return
	}
	born := c.bornInNetwork()
	if !born {
		c.child("let the parent give links", "linux.netDevices", c.write(Sock, Ready))
		c.phase++
	}
	c.joinNetworks(&c.o.Network)
	c.netDevices()
	if !born {
		c.release()
		c.child("wait for the links", "linux.netDevices", c.hearByte())
	}
}

func (c *compiler) netDevices() {
	for _, name := range slices.Sorted(maps.Keys(c.linux.NetDevices)) {
		inside := c.linux.NetDevices[name].Name
		if inside == "" {
			inside = name
		}
		text := "give the link " + name + " to the container"
		if inside != name {
			text += " as " + strconv.Quote(inside)
		}
		c.act(text, "linux.netDevices", Act{Kind: ActDevice, Name: name, Value: inside})
	}
}
