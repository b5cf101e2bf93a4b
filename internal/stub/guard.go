package stub

// Guard is the process above a monitor, by which a monitor may be killed and
// nothing of its children's ends is lost:
//
//	argv[0] is the path to execute, argv[1:] the argv it gets, envp stays.
//
// It becomes a subreaper, executes that program as a child and waits. When the
// child ends with 0, or cannot be executed (127), the guard leaves too; when it
// ends in another way, it is executed anew, a tenth of a second later. Of every
// other child that it inherits, it writes 16 bytes to descriptor 3, which the
// program does not get: the pid and the wait status, little-endian, 8 bytes each.
func Guard(arch string) ([]byte, error) { return build(arch, guard) }

// Holder does nothing until it is killed, and so keeps the descriptors that it
// was given open.
func Holder(arch string) ([]byte, error) { return build(arch, holder) }

// Where guard has what, in its 4 KiB of stack.
const (
	guardRecord = 0
	guardStatus = 8
	guardPause  = 16 // a struct timespec
)

func guard(a *assembler) {
	a.arguments()
	a.alloc()
	a.stack(s5)
	a.imm(a0, 36) // PR_SET_CHILD_SUBREAPER
	a.imm(a1, 1)
	for _, r := range []reg{a2, a3, a4} {
		a.imm(r, 0)
	}
	a.sys("prctl")

	a.label("start")
	a.fork(0)
	a.branch(s2, 0, eq, "child")
	a.branch(s2, 0, lt, "leave")

	a.label("wait")
	a.imm(s4, 0)
	a.store(s4, s5, guardStatus)
	a.imm(a0, -1)
	a.mov(a1, s5)
	a.addi(a1, guardStatus)
	a.imm(a2, 0)
	a.imm(a3, 0)
	a.sys("wait4")
	a.result(s3)
	a.branch(s3, 0, lt, "leave")
	a.mov(s4, s3)
	a.sub(s4, s2)
	a.branch(s4, 0, ne, "another")
	a.load32(s4, s5, guardStatus)
	a.branch(s4, 0, eq, "leave")
	a.shr(s4, 8)
	a.branch(s4, 127, eq, "leave")
	a.imm(s4, 0)
	a.store(s4, s5, guardPause)
	a.imm(s4, 12207)
	a.shl(s4, 13) // 100 ms in nanoseconds
	a.store(s4, s5, guardPause+8)
	a.imm(a0, 0)
	a.imm(a1, 0)
	a.mov(a2, s5)
	a.addi(a2, guardPause)
	a.imm(a3, 0)
	a.imm(a4, 8)
	a.sys("ppoll")
	a.jump("start")

	a.label("another")
	a.store(s3, s5, guardRecord)
	a.imm(a0, 3)
	a.mov(a1, s5)
	a.imm(a2, 16)
	a.sys("write")
	a.jump("wait")

	a.label("child")
	a.keepBack(3)
	a.replace()
	a.imm(a0, 127)
	a.sys("exit_group")
	a.label("leave")
	a.imm(a0, 0)
	a.sys("exit_group")
}

func holder(a *assembler) {
	a.label("hold")
	for _, r := range []reg{a0, a1, a2, a3} {
		a.imm(r, 0)
	}
	a.sys("ppoll")
	a.jump("hold")
}
