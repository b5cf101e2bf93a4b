package stub

// Attendant is the process above one that serves a container from outside, its
// network for instance:
//
//	argv[0] is the path to execute, argv[1:] the argv it gets, envp stays.
//
// It executes that program as a child, which ends with it. Descriptor 3 is a
// pidfd: when that process has ended, the child is killed, and the attendant
// leaves with 0. When the child ends before, its wait status is written to
// descriptor 4, 8 bytes, little-endian, and a second later it is executed anew, up to
// Attempts times; then the attendant leaves with 1. The child gets neither of
// the two descriptors; all others stay.
func Attendant(arch string) ([]byte, error) { return build(arch, attendant) }

// Attempts is how often an attendant executes its program.
const Attempts = 5

// Where attendant has what, in its 4 KiB of stack.
const (
	attendantPolled = 0 // two struct pollfd
	attendantPause  = 16
	attendantStatus = 32
)

func attendant(a *assembler) {
	a.arguments()
	a.alloc()
	a.stack(s5)
	a.imm(s4, Attempts)

	a.label("start")
	a.sys("getpid")
	a.result(s3)
	a.fork(0)
	a.branch(s2, 0, eq, "child")
	a.branch(s2, 0, lt, "leave")
	a.mov(a0, s2)
	a.imm(a1, 0)
	a.sys("pidfd_open")
	a.result(s3)
	a.branch(s3, 0, lt, "over")

	a.label("wait")
	a.pollFor(3, attendantPolled)
	a.imm(a0, 1) // POLLIN
	a.shl(a0, 32)
	a.add(a0, s3)
	a.store(a0, s5, attendantPolled+8)
	a.poll(2, false)
	a.branch(a0, 0, ne, "over")
	a.load(a0, s5, attendantPolled+8)
	a.shr(a0, 48)
	a.branch(a0, 0, eq, "wait")

	a.mov(a0, s3)
	a.sys("close")
	a.imm(a0, 0)
	a.store(a0, s5, attendantStatus)
	a.reap()
	a.imm(a0, 4)
	a.mov(a1, s5)
	a.addi(a1, attendantStatus)
	a.imm(a2, 8)
	a.sys("write")
	a.addi(s4, -1)
	a.branch(s4, 0, eq, "leave")
	a.imm(a0, 1) // second
	a.store(a0, s5, attendantPause)
	a.imm(a0, 0)
	a.store(a0, s5, attendantPause+8)
	a.pollFor(3, attendantPolled)
	a.poll(1, true)
	a.branch(a0, 0, eq, "start")
	a.imm(a0, 0)
	a.sys("exit_group")

	a.label("over")
	a.mov(a0, s2)
	a.imm(a1, 9) // SIGKILL
	a.sys("kill")
	a.reap()
	a.imm(a0, 0)
	a.sys("exit_group")

	a.label("child")
	a.imm(a0, 1) // PR_SET_PDEATHSIG
	a.imm(a1, 9)
	for _, r := range []reg{a2, a3, a4} {
		a.imm(r, 0)
	}
	a.sys("prctl")
	a.sys("getppid")
	a.result(s2)
	a.sub(s2, s3)
	a.branch(s2, 0, ne, "leave") // it has ended before that
	a.keepBack(3)
	a.keepBack(4)
	a.replace()
	a.imm(a0, 127)
	a.sys("exit_group")

	a.label("leave")
	a.imm(a0, 1)
	a.sys("exit_group")
}

// pollFor writes a struct pollfd for fd to be read, to offset o of the stack.
func (a *assembler) pollFor(fd, o int32) {
	a.imm(a0, 1) // POLLIN
	a.shl(a0, 32)
	a.addi(a0, fd)
	a.store(a0, s5, o)
}

// poll is ppoll(2) of the first n; a0 becomes what was returned for the first.
func (a *assembler) poll(n int32, pause bool) {
	a.mov(a0, s5)
	a.imm(a1, n)
	a.imm(a2, 0)
	if pause {
		a.mov(a2, s5)
		a.addi(a2, attendantPause)
	}
	a.imm(a3, 0)
	a.imm(a4, 8)
	a.sys("ppoll")
	a.load(a0, s5, attendantPolled)
	a.shr(a0, 48)
}

// reap waits for the child s2.
func (a *assembler) reap() {
	a.mov(a0, s2)
	a.mov(a1, s5)
	a.addi(a1, attendantStatus)
	a.imm(a2, 0)
	a.imm(a3, 0)
	a.sys("wait4")
}
