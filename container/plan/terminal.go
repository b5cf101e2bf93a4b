package plan

import (
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// terminal opens one in the container's own devpts and sends the master to
// the parent: no path is followed (CVE-2025-52565). Without a devpts of its own
// it is one of that which lies at /dev/ptmx.
func (c *compiler) terminal() {
	if !c.spec.Process.Terminal {
		return
	}
	master := c.slot("terminal master")
	c.tty = c.slot("terminal")
	c.p.Console = master
	flags, text := uint64(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC), "O_RDWR|O_NOCTTY|O_CLOEXEC"
	first := c.openIn(cwd(), "/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
	if c.pts != 0 {
		first = c.call("openat", unix.SYS_OPENAT, from(c.pts), str("ptmx"), named(flags, text), num(0))
	}
	control := []Call{c.call("ioctl", unix.SYS_IOCTL, from(c.tty), named(unix.TIOCSCTTY, "TIOCSCTTY"), num(0))}
	if c.forkLate {
		control = nil // the stub does so
	}
	c.child("open a terminal and send it to the parent", "process.terminal", slices.Concat([]Call{
		first.to(master),
		c.call("ioctl", unix.SYS_IOCTL, from(master), named(unix.TIOCSPTLCK, "TIOCSPTLCK"), buf(make([]byte, 4), "[0]")),
		c.call("ioctl", unix.SYS_IOCTL, from(master), named(unix.TIOCGPTPEER, "TIOCGPTPEER"), named(flags, text)).to(c.tty),
		Call{Name: "sendmsg", Nr: unix.SYS_SENDMSG, Args: []Arg{from(Sock), named(0, "{terminal}"), named(unix.MSG_NOSIGNAL, "MSG_NOSIGNAL")}, Special: SendConsole},
	}, control, []Call{
		c.call("fchown", unix.SYS_FCHOWN, from(c.tty), num(uint64(c.spec.Process.User.UID)), num(^uint64(0))).mayFail(),
	}, c.labelTerminal(), []Call{
		c.call("dup3", unix.SYS_DUP3, from(c.tty), num(0), num(0)),
		c.call("dup3", unix.SYS_DUP3, from(c.tty), num(1), num(0)),
		c.call("dup3", unix.SYS_DUP3, from(c.tty), num(2), num(0)),
	})...)
	c.plainLines()
	c.terminalSize()
	if c.dev == 0 {
		return
	}
	console, target := c.slot("console"), c.slot("target /dev/console")
	calls := []Call{c.openTreeOf(c.tty).to(console)}
	if !c.freshDev() {
		// Whatever it is, it is not followed (CVE-2026-88264).
		calls = append(calls, c.unlinkIn(from(c.dev), "console").mayFail())
	}
	c.child("attach the terminal as /dev/console", "process.terminal", append(c.placeNode(calls, target, "/dev/console"), c.moveOn(console, target))...)
}

// labelTerminal gives the terminal the container's label. Where files can have labels of their own it has
// that of a terminal of who starts the container (see selinux.ContextType), else the container's already.
func (c *compiler) labelTerminal() []Call {
	if c.linux.MountLabel == "" || c.pts == 0 {
		return nil
	}
	return []Call{c.setLabel(c.tty, c.linux.MountLabel).mayFailWith(uintptr(unix.ENOTSUP))}
}

// plainLines are set before the program starts, which may write at once.
func (c *compiler) plainLines() {
	if !c.o.PlainLines {
		return
	}
	c.child("leave line feeds of the terminal as they are", "",
		c.call("ioctl", unix.SYS_IOCTL, from(c.tty), named(unix.TCSETS, "TCSETS"), buf(plainTermios(), "{a new terminal's, without ONLCR}")))
}

// plainTermios is the struct termios of a new pseudo-terminal (tty_std_termios of
// drivers/tty/tty_io.c, changed by pty.c), but for ONLCR.
func plainTermios() []byte {
	var b []byte
	for _, flags := range []uint32{
		unix.ICRNL | unix.IXON,
		unix.OPOST,
		unix.B38400 | unix.CS8 | unix.CREAD,
		unix.ISIG | unix.ICANON | unix.ECHO | unix.ECHOE | unix.ECHOK | unix.ECHOCTL | unix.ECHOKE | unix.IEXTEN,
	} {
		b = binary.NativeEndian.AppendUint32(b, flags)
	}
	const line, control = "\x00", "\003\034\177\025\004\000\001\000\021\023\032\000\022\017\027\026\000\000\000"
	return append(b, line+control...)
}

// terminalSize is set before the program starts, which may ask for it at once.
func (c *compiler) terminalSize() {
	size := c.spec.Process.ConsoleSize
	if size == nil || size.Height == 0 && size.Width == 0 {
		return
	}
	rows, columns := uint16(size.Height), uint16(size.Width)
	var b []byte
	for _, v := range []uint16{rows, columns, 0, 0} { // struct winsize of ioctl_tty(2), little-endian as all we run on
		b = append(b, byte(v), byte(v>>8))
	}
	c.child(fmt.Sprintf("make the terminal %d by %d", columns, rows), "process.consoleSize",
		c.call("ioctl", unix.SYS_IOCTL, from(c.tty), named(unix.TIOCSWINSZ, "TIOCSWINSZ"), buf(b, fmt.Sprintf("{%d, %d}", rows, columns))))
}
