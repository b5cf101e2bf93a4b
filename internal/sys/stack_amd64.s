#include "funcdata.h"
#include "textflag.h"

// func GrowStack()
TEXT ·GrowStack(SB),0,$60000-0
	NO_LOCAL_POINTERS
	RET
