package stub

// trampoline is Trampoline.
func trampoline(fd int32, l *Label) func(*assembler) {
	return func(a *assembler) {
		a.closeOnExec(fd)
		a.keepLabel(l)
		a.arguments()
		a.confine(l)
		a.become(fd)
		a.again()
	}
}

// waiter is Waiter.
func waiter(fd int32, l *Label) func(*assembler) {
	return func(a *assembler) {
		a.closeOnExec(fd)
		a.closeOnExec(fd + 1)
		a.keepLabel(l)
		a.arguments()
		a.label("wait")
		a.imm(a0, fd)
		a.mov(a1, s0)
		a.imm(a2, 1)
		a.sys("read")
		a.result(s2)
		a.branch(s2, -4, eq, "wait") // EINTR
		a.branch(s2, 1, ne, "leave")
		a.confine(l)
		a.become(fd + 1)
		a.again()
	}
}

// Refused is what the first four bytes of a Joiner's message say that could not
// fork, or begin a session; the next four are the errno.
const Refused = 4095

// joiner is Joiner.
func joiner(fd int32, terminal bool, l *Label) func(*assembler) {
	return func(a *assembler) {
		a.closeOnExec(fd)
		a.keepLabel(l)
		a.arguments()
		a.confine(l) // and a fork hands it on
		a.fork(cloneParent)
		a.branch(s2, 0, lt, "refused")
		a.branch(s2, 0, eq, "second")
		a.imm(a0, 0)
		a.sys("exit_group")

		a.label("second")
		a.imm(a0, fd)
		a.address(a1, "hello")
		a.imm(a2, int32(len(hello)))
		a.sys("write")
		a.label("wait")
		a.imm(a0, fd)
		a.mov(a1, s0)
		a.imm(a2, 1)
		a.sys("read")
		a.result(s2)
		a.branch(s2, -4, eq, "wait") // EINTR
		a.branch(s2, 1, ne, "leave")
		a.sys("setsid")
		a.result(s2)
		a.branch(s2, 0, lt, "refused")
		if terminal {
			a.imm(a0, 0)
			a.imm(a1, 0x540e) // TIOCSCTTY
			a.imm(a2, 0)
			a.sys("ioctl")
			a.result(s2)
			a.branch(s2, 0, lt, "refused")
		}
		a.become(fd)

		a.label("refused")
		a.neg(s2)
		a.shl(s2, 32)
		a.addi(s2, Refused)
		a.store(s2, s0, 0)
		a.imm(a0, fd)
		a.mov(a1, s0)
		a.imm(a2, 8)
		a.sys("write")
		a.imm(a0, 126)
		a.sys("exit_group")
		a.data("hello", hello)
		a.again()
	}
}

// Unlabelled is what is added to an errno that says why the program could not be
// given its label: see Label.
const Unlabelled = 2048

// hello is what the second process says.
const hello = "hello"

// closeOnExec goes to again where fd is not open.
func (a *assembler) closeOnExec(fd int32) {
	a.keepBack(fd)
	a.result(s2)
	a.branch(s2, -9, eq, "again") // EBADF
}

// keepBack keeps fd from what is executed next.
func (a *assembler) keepBack(fd int32) {
	a.imm(a0, fd)
	a.imm(a1, 2) // F_SETFD
	a.imm(a2, 1) // FD_CLOEXEC
	a.sys("fcntl")
}

// itself is what again says.
const itself = "kiste: cannot run the script: exec format error: its interpreter is /proc/self/exe\n"

// again is for a program that was executed by itself, which closed its
// descriptors: it would go on so for ever.
func (a *assembler) again() {
	a.label("again")
	a.imm(a0, 2)
	a.address(a1, "itself")
	a.imm(a2, int32(len(itself)))
	a.sys("write")
	a.imm(a0, 126)
	a.sys("exit_group")
	a.data("itself", itself)
}

// arguments reads the stack, which holds argc, argv, 0, envp, 0: s0 points to
// argc, whose place is free from now on, and s1 to envp.
func (a *assembler) arguments() {
	a.stack(s0)
	a.load(s1, s0, 0)
	a.shl(s1, 3)
	a.add(s1, s0)
	a.addi(s1, 16)
}

const cloneParent = 0x8000 // CLONE_PARENT

// fork is clone(2), with flags; s2 becomes its result.
func (a *assembler) fork(flags int32) {
	a.imm(a0, flags|sigchld)
	for _, r := range []reg{a1, a2, a3, a4} {
		a.imm(r, 0)
	}
	a.sys("clone")
	a.result(s2)
}

// replace executes argv[0] with argv[1:], after arguments. It goes on where that
// failed.
func (a *assembler) replace() {
	a.load(a0, s0, 8) // argv[0]
	a.mov(a1, s0)
	a.addi(a1, 16) // argv+1
	a.mov(a2, s1)
	a.sys("execve")
}

// keepLabel keeps the directory of l from the program, and others who have the
// label already from a process that has not: by PR_SET_DUMPABLE, which the
// program's execve sets again.
func (a *assembler) keepLabel(l *Label) {
	if l == nil {
		return
	}
	a.imm(a0, 4) // PR_SET_DUMPABLE
	a.imm(a1, 0)
	a.sys("prctl")
	a.keepBack(int32(l.FD))
}

// confine asks for the label of what is executed next. Where that fails it goes
// to unlabelled, with the result in s2.
func (a *assembler) confine(l *Label) {
	if l == nil {
		return
	}
	a.imm(a0, int32(l.FD))
	a.address(a1, "attribute")
	a.imm(a2, 1) // O_WRONLY
	a.imm(a3, 0)
	a.sys("openat")
	a.result(s2)
	a.branch(s2, 0, lt, "unlabelled")
	a.mov(a0, s2)
	a.address(a1, "wish")
	a.imm(a2, int32(len(l.Wish)))
	a.sys("write")
	a.result(s3)
	a.mov(a0, s2)
	a.sys("close")
	a.mov(s2, s3)
	a.branch(s2, 0, lt, "unlabelled")
	a.jump("labelled")
	a.label("unlabelled")
	a.addi(s2, -Unlabelled)
	a.jump("report")
	a.data("attribute", "exec\x00")
	a.data("wish", l.Wish)
	a.label("labelled")
}

// become is replace, or says why not, as it says what confine could not.
func (a *assembler) become(report int32) {
	a.replace()
	a.result(s2)
	a.label("report")
	a.neg(s2)
	a.store(s2, s0, 0)
	a.imm(a0, report)
	a.mov(a1, s0)
	a.imm(a2, 4)
	a.sys("write")
	a.label("leave")
	a.imm(a0, 127)
	a.sys("exit_group")
}

// Where initProgram has what, from the bottom of its 8 KiB of stack.
const (
	oldMask   = 0
	newMask   = 8
	status    = 16
	group     = 24
	action    = 32 // a struct sigaction of 32 bytes, all zero
	candidate = 64
	maxPart   = 4000 // of a directory, and of a name
	sigchld   = 17
)

// initProgram is Init. s0: the first stack; s1: the memory above; s2: the
// child's pid, and in the child the command's name.
func initProgram(a *assembler) {
	a.stack(s0)
	a.alloc()
	a.alloc()
	a.stack(s1)
	a.blockSignals()
	a.fork(0)
	a.branch(s2, 0, eq, "child")
	a.branch(s2, 0, lt, "denied")
	a.serve()
	a.label("child")
	a.foreground()
	a.execute()
	a.data("path", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\x00")
	a.data("message", "init: cannot execute the command\n")
}

// blockSignals blocks every signal, so that they wait to be asked for, and has
// SIGCHLD not ignored, or there would be no status to wait for.
func (a *assembler) blockSignals() {
	a.imm(s2, 0)
	for off := int32(action); off < action+32; off += 8 {
		a.store(s2, s1, off)
	}
	a.imm(a0, sigchld)
	a.mov(a1, s1)
	a.addi(a1, action)
	a.imm(a2, 0)
	a.imm(a3, 8)
	a.sys("rt_sigaction")
	a.imm(s2, -1)
	a.store(s2, s1, newMask)
	a.imm(a0, 2) // SIG_SETMASK
	a.mov(a1, s1)
	a.addi(a1, newMask)
	a.mov(a2, s1) // oldMask
	a.imm(a3, 8)
	a.sys("rt_sigprocmask")
}

// serve hands signals on and reaps until the child has ended.
func (a *assembler) serve() {
	a.label("serve")
	a.mov(a0, s1)
	a.addi(a0, newMask)
	a.imm(a1, 0)
	a.imm(a2, 0)
	a.imm(a3, 8)
	a.sys("rt_sigtimedwait")
	a.result(s3)
	a.branch(s3, 0, lt, "serve")
	a.branch(s3, sigchld, eq, "reap")
	a.mov(a0, s2)
	a.mov(a1, s3)
	a.sys("kill")
	a.jump("serve")

	a.label("reap")
	a.imm(a0, -1)
	a.mov(a1, s1)
	a.addi(a1, status)
	a.imm(a2, 1) // WNOHANG
	a.imm(a3, 0)
	a.sys("wait4")
	a.result(s3)
	a.branch(s3, 1, lt, "serve")
	a.sub(s3, s2)
	a.branch(s3, 0, ne, "reap")

	a.load32(s3, s1, status)
	a.mov(s4, s3)
	a.low(s4, 7)
	a.branch(s4, 0, ne, "signalled")
	a.shr(s3, 8)
	a.low(s3, 8)
	a.mov(a0, s3)
	a.sys("exit_group")
	a.label("signalled")
	a.mov(a0, s4)
	a.addi(a0, 128)
	a.sys("exit_group")
}

// foreground gives the child a group of its own, the terminal, and the signals
// as they were. SIGTTOU is still blocked when it takes the terminal.
func (a *assembler) foreground() {
	a.imm(a0, 0)
	a.imm(a1, 0)
	a.sys("setpgid")
	a.sys("getpid")
	a.result(s3)
	a.store(s3, s1, group)
	a.imm(a0, 0)
	a.imm(a1, 0x5410) // TIOCSPGRP
	a.mov(a2, s1)
	a.addi(a2, group)
	a.sys("ioctl")
	a.imm(a0, 2) // SIG_SETMASK
	a.mov(a1, s1)
	a.imm(a2, 0)
	a.imm(a3, 8)
	a.sys("rt_sigprocmask")
}

// execute is execvp(3) of argv[1:]. s0 becomes the command's argv, s4 envp, s5
// the error to report.
func (a *assembler) execute() {
	a.imm(s5, -2) // ENOENT
	a.load(s4, s0, 0)
	a.shl(s4, 3)
	a.add(s4, s0)
	a.addi(s4, 16)
	a.addi(s0, 16)
	a.load(s2, s0, 0)
	a.branch(s2, 0, eq, "failed")
	for i, c := range []int32{'-', '-', 0} {
		a.load8(a0, s2, int32(i))
		a.branch(a0, c, ne, "command")
	}
	a.addi(s0, 8)
	a.load(s2, s0, 0)
	a.branch(s2, 0, eq, "failed")
	a.label("command")

	a.mov(s3, s2)
	a.label("slash?")
	a.load8(a0, s3, 0)
	a.branch(a0, 0, eq, "search")
	a.addi(s3, 1)
	a.branch(a0, '/', ne, "slash?")
	a.mov(a0, s2)
	a.mov(a1, s0)
	a.mov(a2, s4)
	a.sys("execve")
	a.result(s5)
	a.jump("failed")

	a.label("search") // $PATH, or else the usual
	a.mov(a1, s4)
	a.label("variable")
	a.load(s3, a1, 0)
	a.addi(a1, 8)
	a.branch(s3, 0, eq, "no $PATH")
	for i, c := range []byte("PATH=") {
		a.load8(a0, s3, int32(i))
		a.branch(a0, int32(c), ne, "variable")
	}
	a.addi(s3, 5)
	a.jump("directory")
	a.label("no $PATH")
	a.address(s3, "path")

	a.label("directory") // of $PATH at s3, copied to a1
	a.mov(a1, s1)
	a.addi(a1, candidate)
	a.imm(a2, maxPart)
	a.label("copy directory")
	a.load8(a0, s3, 0)
	a.branch(a0, 0, eq, "copied directory")
	a.branch(a0, ':', eq, "copied directory")
	a.addi(s3, 1)
	a.branch(a2, 0, eq, "copy directory") // too long: no such directory
	a.store8(a0, a1)
	a.addi(a1, 1)
	a.addi(a2, -1)
	a.jump("copy directory")
	a.label("copied directory")
	a.branch(a2, maxPart, ne, "named directory")
	a.imm(a0, '.')
	a.store8(a0, a1)
	a.addi(a1, 1)
	a.label("named directory")
	a.imm(a0, '/')
	a.store8(a0, a1)
	a.addi(a1, 1)

	a.mov(a3, s2)
	a.imm(a2, maxPart)
	a.label("copy name")
	a.load8(a0, a3, 0)
	a.store8(a0, a1)
	a.branch(a0, 0, eq, "copied name")
	a.addi(a3, 1)
	a.addi(a1, 1)
	a.addi(a2, -1)
	a.branch(a2, 0, ne, "copy name")
	a.jump("failed")
	a.label("copied name")
	a.mov(a0, s1)
	a.addi(a0, candidate)
	a.mov(a1, s0)
	a.mov(a2, s4)
	a.sys("execve")
	a.result(a1)
	a.branch(a1, -2, eq, "next directory")  // ENOENT
	a.branch(a1, -20, eq, "next directory") // ENOTDIR
	a.mov(s5, a1)
	a.label("next directory")
	a.load8(a0, s3, 0)
	a.addi(s3, 1)
	a.branch(a0, ':', eq, "directory")

	a.label("failed")
	a.imm(a0, 2)
	a.address(a1, "message")
	a.imm(a2, int32(len("init: cannot execute the command\n")))
	a.sys("write")
	a.imm(a0, 127)
	a.branch(s5, -2, eq, "leave")
	a.label("denied")
	a.imm(a0, 126)
	a.label("leave")
	a.sys("exit_group")
}
