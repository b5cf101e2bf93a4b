#include "go_asm.h"
#include "textflag.h"

#define SYS_clone	56
#define SYS_exit	60
#define SYS_prctl	157
#define SYS_futex	202
#define SYS_clone3	435

#define PR_SET_TIMERSLACK	29

// CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID
#define THREAD	0x350f00

// func startThread(s *spawn, stack uintptr) int
TEXT ·startThread(SB),NOSPLIT,$0-24
	MOVQ	s+0(FP), R13
	MOVQ	stack+8(FP), SI
	MOVQ	$THREAD, DI
	LEAQ	spawn_thread(R13), DX
	MOVQ	DX, R10
	XORL	R8, R8
	MOVL	$SYS_clone, AX
	SYSCALL
	TESTQ	AX, AX
	JEQ	thread
	MOVQ	AX, ret+16(FP)
	RET

thread:
	// The thread that has asked may have late timers: see Timely.
	MOVQ	·entered+entryState_slack(SB), SI
	TESTQ	SI, SI
	JEQ	fork
	MOVL	$PR_SET_TIMERSLACK, DI
	MOVL	$SYS_prctl, AX
	SYSCALL

fork:
	// On its own stack, which the child below uses too: until the child
	// has executed its program, this thread does not return from clone3.
	LEAQ	spawn_args(R13), DI
	MOVL	$cloneArgs__size, SI
	MOVL	$SYS_clone3, AX
	SYSCALL
	TESTQ	AX, AX
	JNE	parent
	SUBQ	$16, SP
	MOVQ	R13, 0(SP)
	CALL	·begun(SB)
	INT	$3

parent:
	MOVQ	AX, spawn_result(R13)
	MOVL	$1, spawn_state(R13)
	LEAQ	spawn_state(R13), DI
	MOVL	$const_futexWake, SI
	MOVL	$1, DX
	MOVL	$SYS_futex, AX
	SYSCALL

	// The kernel takes the end of this thread for the end of the child's
	// parent (PR_SET_PDEATHSIG), so it stays.
stay:
	MOVL	spawn_release(R13), AX
	TESTL	AX, AX
	JNE	end
	LEAQ	spawn_release(R13), DI
	MOVL	$const_futexWait, SI
	XORL	DX, DX
	XORL	R10, R10
	MOVL	$SYS_futex, AX
	SYSCALL
	JMP	stay

end:
	XORL	DI, DI
	MOVL	$SYS_exit, AX
	SYSCALL
	INT	$3
