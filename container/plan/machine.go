package plan

import "golang.org/x/sys/unix"

// machineID writes that of the system: into its own file, whoever has it open
// by another name. Where that cannot be, its init finds another way.
func (c *compiler) machineID() {
	if c.o.MachineID == "" {
		return
	}
	file := c.slot("machine id")
	c.child("write /etc/machine-id", "",
		c.call("openat2", unix.SYS_OPENAT2, cwd(), str("/etc/machine-id"),
			buf(words(unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o444, unix.RESOLVE_NO_MAGICLINKS),
				"{O_WRONLY|O_CREAT|O_TRUNC|O_NOFOLLOW|O_NONBLOCK|O_CLOEXEC, 0444, RESOLVE_NO_MAGICLINKS}"), num(24)).to(file).skipOnError(2),
		c.write(file, c.o.MachineID+"\n").mayFail(),
		c.call("close", unix.SYS_CLOSE, from(file)))
}
