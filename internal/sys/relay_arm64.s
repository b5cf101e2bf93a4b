#include "go_asm.h"
#include "textflag.h"

#define SYS_rt_sigreturn	139
#define SYS_pidfd_send_signal	424

// What relay_amd64.s does.
TEXT relayed<>(SB),NOSPLIT|NOFRAME,$0
	SUB	$1, R0, R1
	MOVD	$1, R2
	LSL	R1, R2, R2
	MOVD	$·relay(SB), R3
note:
	LDAXR	(R3), R4
	ORR	R2, R4, R4
	STLXR	R4, (R3), R5
	CBNZW	R5, note
	ADD	$relayState_target, R3, R6
	LDARW	(R6), R7
	TBNZ	$31, R7, done
take:
	LDAXR	(R3), R4
	TST	R2, R4
	BEQ	done
	BIC	R2, R4, R4
	STLXR	R4, (R3), R5
	CBNZW	R5, take
	MOVD	R0, R1
	MOVW	R7, R0
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	$SYS_pidfd_send_signal, R8
	SVC
done:
	RET

TEXT restored<>(SB),NOSPLIT|NOFRAME,$0
	MOVD	$SYS_rt_sigreturn, R8
	SVC
	BRK

// func handler() uintptr
TEXT ·handler(SB),NOSPLIT,$0-8
	MOVD	$relayed<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// func restorer() uintptr
TEXT ·restorer(SB),NOSPLIT,$0-8
	MOVD	$restored<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET
