#include "go_asm.h"
#include "textflag.h"

#define SYS_fcntl	25
#define SYS_sched_setaffinity	122
#define SYS_sched_getaffinity	123
#define SYS_prctl	167
#define SYS_getcpu	168
#define SYS_geteuid	175
#define SYS_prlimit64	261

#define PR_SET_TIMERSLACK	29
#define PR_GET_TIMERSLACK	30
#define F_GETFD	1
#define RLIMIT_NOFILE	7

// What entry_amd64.s does.
TEXT ·entry(SB),NOSPLIT|NOFRAME,$0
	MOVD	$·entered(SB), R19
	MOVD	ZR, R0
	MOVD	$128, R1
	ADD	$entryState_cpus, R19, R2
	MOVD	$SYS_sched_getaffinity, R8
	SVC
	CMP	$0, R0
	BLE	descriptors
	MOVD	R0, entryState_length(R19)

	SUB	$144, RSP
	MOVD	RSP, R20
	MOVD	$0, R1
zero:
	MOVD	ZR, (R20)(R1)
	ADD	$8, R1
	CMP	$144, R1
	BLT	zero
	ADD	$128, R20, R0
	MOVD	ZR, R1
	MOVD	ZR, R2
	MOVD	$SYS_getcpu, R8
	SVC
	CBNZ	R0, tied
	MOVWU	128(R20), R1
	LSR	$6, R1, R2
	AND	$63, R1
	MOVD	$1, R3
	LSL	R1, R3, R3
	MOVD	R3, (R20)(R2<<3)
	MOVD	ZR, R0
	MOVD	$128, R1
	MOVD	R20, R2
	MOVD	$SYS_sched_setaffinity, R8
	SVC
tied:
	ADD	$144, RSP

descriptors:
	MOVD	$2, R21
next:
	MOVD	R21, R0
	MOVD	$F_GETFD, R1
	MOVD	$SYS_fcntl, R8
	SVC
	TBNZ	$63, R0, start
	SUBS	$1, R21, R21
	BPL	next

	MOVD	ZR, R0
	MOVD	$RLIMIT_NOFILE, R1
	MOVD	ZR, R2
	ADD	$entryState_limit, R19, R3
	MOVD	$SYS_prlimit64, R8
	SVC
	CBNZ	R0, start
	SUB	$16, RSP
	MOVD	RSP, R20
	MOVD	ZR, (R20)
	MOVD	(entryState_limit+8)(R19), R1
	MOVD	R1, 8(R20)
	MOVD	ZR, R0
	MOVD	$RLIMIT_NOFILE, R1
	MOVD	R20, R2
	MOVD	ZR, R3
	MOVD	$SYS_prlimit64, R8
	SVC
	ADD	$16, RSP
	CBNZ	R0, start
	MOVD	$1, R1
	MOVD	R1, entryState_limited(R19)

start:
	MOVD	·sampling(SB), R1
	MOVD	ZR, (R1)
	B	_rt0_arm64_linux(SB)

// See early.go.
TEXT ·early(SB),NOSPLIT|NOFRAME,$0
	MOVD	0(RSP), R0
	ADD	$8, RSP, R1
	SUB	$32, RSP
	MOVD	R0, 8(RSP)
	MOVD	R1, 16(RSP)
	BL	·earlyStart(SB)
	ADD	$32, RSP
	MOVD	$PR_GET_TIMERSLACK, R0
	MOVD	$SYS_prctl, R8
	SVC
	CMP	$0, R0
	BLE	begin
	MOVD	$·entered(SB), R19
	MOVD	R0, entryState_slack(R19)
	MOVD	$SYS_geteuid, R8
	SVC
	MOVD	$const_aloneSlack, R1
	CBZ	R0, late
	MOVD	$const_monitorSlack, R1
late:
	MOVD	R1, entryState_monitor(R19)
	MOVD	$PR_SET_TIMERSLACK, R0
	MOVD	$SYS_prctl, R8
	SVC
begin:
	B	·entry(SB)
