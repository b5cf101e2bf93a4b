package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/kernel/chroot"
)

// standardDevices are those that every container has (runtime-spec,
// config-linux.md, default devices).
var standardDevices = []string{"null", "zero", "full", "random", "urandom", "tty"}

func (c *compiler) hasDev() bool {
	return slices.ContainsFunc(c.spec.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" && m.Type == "tmpfs" })
}

func (c *compiler) extraDevices() []specs.LinuxDevice {
	var extra []specs.LinuxDevice
	for _, d := range c.spec.Linux.Devices {
		name, inDev := strings.CutPrefix(d.Path, "/dev/")
		if !inDev || !slices.Contains(standardDevices, name) && name != "ptmx" && name != "console" {
			extra = append(extra, d)
		}
	}
	return extra
}

func deviceMount(d specs.LinuxDevice) chroot.Mount {
	return chroot.Mount{Type: "device", Target: d.Path, Source: fmt.Sprintf("%s %d:%d", d.Type, d.Major, d.Minor), Options: deviceOptions(d)}
}

func deviceOptions(d specs.LinuxDevice) []string {
	mode := uint32(0o666)
	if d.FileMode != nil {
		mode = uint32(*d.FileMode) & 0o777
	}
	o := []string{"mode=" + octal(uint64(mode))}
	if d.UID != nil {
		o = append(o, fmt.Sprintf("uid=%d", *d.UID))
	}
	if d.GID != nil {
		o = append(o, fmt.Sprintf("gid=%d", *d.GID))
	}
	return o
}

// takeDevices clones the host's nodes: a user namespace may make none, but use
// those that are mounted.
func (c *compiler) takeDevices() {
	if !c.hasDev() {
		if len(c.spec.Linux.MaskedPaths) > 0 {
			c.child("take /dev/null", "linux.maskedPaths", openTree("/dev/null", false).to(c.slot("device /dev/null")))
		}
		return
	}
	for _, name := range standardDevices {
		c.child("take /dev/"+name, "linux.devices", openTree("/dev/"+name, false).to(c.slot("device /dev/"+name)))
	}
	for _, d := range c.extraDevices() {
		if !c.f.Host {
			c.child("take "+d.Path, "linux.devices", openTree(d.Path, false).to(c.slot("device "+d.Path)))
		}
	}
}

// devices fills /dev.
func (c *compiler) devices() {
	if !c.hasDev() {
		return
	}
	for _, name := range standardDevices {
		name = "/dev/" + name
		c.child("attach "+name, "linux.devices", touch(cwd(), name).mayFailWith(uintptr(unix.EEXIST)), moveTo(c.slotOf("device "+name), name))
	}
	for _, d := range c.extraDevices() {
		target := c.slot("target " + d.Path)
		c.child("attach "+d.Path, "linux.devices", append(c.place(target, d.Path, false, true), moveOn(c.slotOf("device "+d.Path), target))...)
	}
	links := []Call{symlink("/proc/self/fd", "/dev/fd"), symlink("/proc/self/fd/0", "/dev/stdin"), symlink("/proc/self/fd/1", "/dev/stdout"),
		symlink("/proc/self/fd/2", "/dev/stderr"), symlink("/proc/kcore", "/dev/core")}
	if c.pts != 0 {
		links = append(links, symlink("pts/ptmx", "/dev/ptmx"))
	}
	c.child("link /dev/fd, stdin, stdout, stderr, core, ptmx", "linux.devices", links...)
	if c.tty != 0 {
		console := c.slot("console")
		c.child("attach the terminal as /dev/console", "process.terminal", openTreeOf(c.tty).to(console), touch(cwd(), "/dev/console"), moveTo(console, "/dev/console"))
	}
}
