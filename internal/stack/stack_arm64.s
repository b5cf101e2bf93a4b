#include "funcdata.h"
#include "textflag.h"

// func grow() bool
TEXT ·grow(SB),0,$28000-1
	NO_LOCAL_POINTERS
	MOVD	$1, R0
	MOVB	R0, ret+0(FP)
	RET
