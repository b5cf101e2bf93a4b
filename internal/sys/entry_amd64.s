#include "go_asm.h"
#include "textflag.h"

#define SYS_fcntl	72
#define SYS_geteuid	107
#define SYS_prctl	157
#define SYS_arch_prctl	158
#define SYS_sched_setaffinity	203
#define SYS_sched_getaffinity	204
#define SYS_prlimit64	302
#define SYS_getcpu	309

#define ARCH_SET_FS	0x1002
#define PR_SET_TIMERSLACK	29
#define PR_GET_TIMERSLACK	30
#define F_GETFD	1
#define RLIMIT_NOFILE	7

// See entry.go. All registers are free here; the stack has the arguments.
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0
	XORL	DI, DI
	MOVL	$128, SI
	LEAQ	·entered+entryState_cpus(SB), DX
	MOVL	$SYS_sched_getaffinity, AX
	SYSCALL
	TESTQ	AX, AX
	JLE	descriptors
	MOVQ	AX, ·entered+entryState_length(SB)

	// A set with the one processor, on the stack.
	SUBQ	$128, SP
	MOVQ	SP, DI
	XORL	AX, AX
	MOVL	$16, CX
	CLD
	REP
	STOSQ
	LEAQ	-8(SP), DI
	XORL	SI, SI
	XORL	DX, DX
	MOVL	$SYS_getcpu, AX
	SYSCALL
	TESTQ	AX, AX
	JNE	tied
	MOVL	-8(SP), CX
	BTSQ	CX, 0(SP)
	XORL	DI, DI
	MOVL	$128, SI
	MOVQ	SP, DX
	MOVL	$SYS_sched_setaffinity, AX
	SYSCALL
tied:
	ADDQ	$128, SP

descriptors:
	MOVL	$2, R12
next:
	MOVL	R12, DI
	MOVL	$F_GETFD, SI
	MOVL	$SYS_fcntl, AX
	SYSCALL
	TESTQ	AX, AX
	JLT	start
	DECL	R12
	JGE	next

	XORL	DI, DI
	MOVL	$RLIMIT_NOFILE, SI
	XORL	DX, DX
	LEAQ	·entered+entryState_limit(SB), R10
	MOVL	$SYS_prlimit64, AX
	SYSCALL
	TESTQ	AX, AX
	JNE	start
	MOVQ	$0, -16(SP)
	MOVQ	·entered+(entryState_limit+8)(SB), AX
	MOVQ	AX, -8(SP)
	XORL	DI, DI
	MOVL	$RLIMIT_NOFILE, SI
	LEAQ	-16(SP), DX
	XORL	R10, R10
	MOVL	$SYS_prlimit64, AX
	SYSCALL
	TESTQ	AX, AX
	JNE	start
	MOVQ	$1, ·entered+entryState_limited(SB)

start:
	MOVQ	·sampling(SB), AX
	MOVQ	$0, (AX)
	JMP	_rt0_amd64_linux(SB)

// See early.go. The goroutine is nil.
TEXT ·early(SB),NOSPLIT|NOFRAME,$0
	MOVL	$ARCH_SET_FS, DI
	LEAQ	·earlyThread+64(SB), SI
	MOVL	$SYS_arch_prctl, AX
	SYSCALL
	TESTQ	AX, AX
	JNE	usual
	MOVQ	0(SP), AX
	LEAQ	8(SP), CX
	SUBQ	$16, SP
	MOVQ	AX, 0(SP)
	MOVQ	CX, 8(SP)
	CALL	·earlyStart(SB)
	ADDQ	$16, SP
usual:
	MOVL	$PR_GET_TIMERSLACK, DI
	MOVL	$SYS_prctl, AX
	SYSCALL
	TESTQ	AX, AX
	JLE	begin
	MOVQ	AX, ·entered+entryState_slack(SB)
	MOVL	$SYS_geteuid, AX
	SYSCALL
	MOVL	$const_aloneSlack, SI
	TESTQ	AX, AX
	JEQ	late
	MOVL	$const_monitorSlack, SI
late:
	MOVQ	SI, ·entered+entryState_monitor(SB)
	MOVL	$PR_SET_TIMERSLACK, DI
	MOVL	$SYS_prctl, AX
	SYSCALL
begin:
	JMP	·entry(SB)
