#include "go_asm.h"
#include "textflag.h"

#define SYS_rt_sigreturn	15
#define SYS_pidfd_send_signal	424

// relayed is a signal handler. The signal is noted first and then looked at, so
// that it is passed on once: here, or by who sets the target meanwhile.
TEXT relayed<>(SB),NOSPLIT|NOFRAME,$0
	LEAL	-1(DI), CX
	LOCK
	BTSQ	CX, ·relay+relayState_waiting(SB)
	MOVL	·relay+relayState_target(SB), AX
	TESTL	AX, AX
	JLT	done
	LOCK
	BTRQ	CX, ·relay+relayState_waiting(SB)
	JCC	done
	MOVL	DI, SI
	MOVL	AX, DI
	XORL	DX, DX
	XORL	R10, R10
	MOVL	$SYS_pidfd_send_signal, AX
	SYSCALL
done:
	RET

TEXT restored<>(SB),NOSPLIT|NOFRAME,$0
	MOVL	$SYS_rt_sigreturn, AX
	SYSCALL
	INT	$3

// func handler() uintptr
TEXT ·handler(SB),NOSPLIT,$0-8
	LEAQ	relayed<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB),NOSPLIT,$0-8
	LEAQ	restored<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET
