#include "go_asm.h"
#include "textflag.h"

#define SYS_exit	93
#define SYS_futex	98
#define SYS_prctl	167
#define SYS_clone	220
#define SYS_clone3	435

#define PR_SET_TIMERSLACK	29

// CLONE_VM|CLONE_FS|CLONE_FILES|CLONE_SIGHAND|CLONE_THREAD|CLONE_SYSVSEM|CLONE_PARENT_SETTID|CLONE_CHILD_CLEARTID
#define THREAD	0x350f00

// What spawn_amd64.s does, with its comments.
//
// func startThread(s *spawn, stack uintptr) int
TEXT ·startThread(SB),NOSPLIT,$0-24
	MOVD	s+0(FP), R19
	MOVD	stack+8(FP), R1
	MOVD	$THREAD, R0
	ADD	$spawn_thread, R19, R2
	MOVD	ZR, R3
	MOVD	R2, R4
	MOVD	$SYS_clone, R8
	SVC
	CBZ	R0, thread
	MOVD	R0, ret+16(FP)
	RET

thread:
	MOVD	$·entered(SB), R1
	MOVD	entryState_slack(R1), R1
	CBZ	R1, fork
	MOVD	$PR_SET_TIMERSLACK, R0
	MOVD	$SYS_prctl, R8
	SVC

fork:
	ADD	$spawn_args, R19, R0
	MOVD	$cloneArgs__size, R1
	MOVD	$SYS_clone3, R8
	SVC
	CBNZ	R0, parent
	SUB	$32, RSP
	MOVD	R19, 8(RSP)
	BL	·begun(SB)
	BRK

parent:
	MOVD	R0, spawn_result(R19)
	MOVW	$1, R0
	ADD	$spawn_state, R19, R1
	STLRW	R0, (R1)
	MOVD	R1, R0
	MOVD	$const_futexWake, R1
	MOVD	$1, R2
	MOVD	$SYS_futex, R8
	SVC

stay:
	ADD	$spawn_release, R19, R0
	LDARW	(R0), R1
	CBNZW	R1, end
	MOVD	$const_futexWait, R1
	MOVD	ZR, R2
	MOVD	ZR, R3
	MOVD	$SYS_futex, R8
	SVC
	B	stay

end:
	MOVD	ZR, R0
	MOVD	$SYS_exit, R8
	SVC
	BRK
