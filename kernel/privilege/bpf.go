package privilege

import "encoding/binary"

// Classic BPF is a machine whose jumps only go forward, by at most 255
// instructions. So the assembler works from the last instruction to the first:
// whatever a jump leads to stands already there, and when it has moved too far
// away a copy or a long jump is put in between.

// An Instruction has the layout of struct sock_filter of linux/filter.h, so a
// []Instruction is what seccomp(2) reads.
type Instruction struct {
	Op     uint16
	Jt, Jf uint8
	K      uint32
}

// The operations used, from linux/bpf_common.h.
const (
	opLoad = 0x20 // BPF_LD | BPF_W | BPF_ABS
	opAnd  = 0x54 // BPF_ALU | BPF_AND | BPF_K
	opJump = 0x05 // BPF_JMP | BPF_JA
	opEQ   = 0x15 // BPF_JMP | BPF_JEQ | BPF_K
	opGT   = 0x25 // BPF_JMP | BPF_JGT | BPF_K
	opGE   = 0x35 // BPF_JMP | BPF_JGE | BPF_K
	opRet  = 0x06 // BPF_RET | BPF_K
)

// A label is an instruction's distance from the program's end, less one.
type label int

// An assembler holds a program back to front. Every method puts instructions
// before those that are there and returns the label of the first.
type assembler struct {
	code []Instruction
	rets []label // of the last instruction of each return value
}

func (a *assembler) put(in Instruction) label {
	a.code = append(a.code, in)
	return label(len(a.code) - 1)
}

// reach is how far a jump may lead; less than 255 leaves room for the two
// instructions that near may put in between.
const reach = 250

func (a *assembler) far(to label) bool { return len(a.code)-int(to) > reach }

// ret is "return value", an old one if it is near enough.
func (a *assembler) ret(value uint32) label {
	for i, l := range a.rets {
		if a.code[l].K != value {
			continue
		}
		if a.far(l) {
			a.rets[i] = a.put(Instruction{Op: opRet, K: value})
		}
		return a.rets[i]
	}
	l := a.put(Instruction{Op: opRet, K: value})
	a.rets = append(a.rets, l)
	return l
}

// near is a place within reach that leads to the label.
func (a *assembler) near(to label) label {
	switch {
	case !a.far(to):
		return to
	case a.code[to].Op == opRet:
		return a.ret(a.code[to].K)
	}
	return a.put(Instruction{Op: opJump, K: uint32(len(a.code) - int(to) - 1)})
}

// branch is "if accumulator op k goto yes else goto no".
func (a *assembler) branch(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return yes
	}
	yes, no = a.near(yes), a.near(no)
	at := len(a.code)
	return a.put(Instruction{Op: op, Jt: uint8(at - int(yes) - 1), Jf: uint8(at - int(no) - 1), K: k})
}

// then is an instruction that goes on at next.
func (a *assembler) then(in Instruction, next label) label {
	if int(next) != len(a.code)-1 {
		if a.code[next].Op == opRet {
			a.put(a.code[next])
		} else {
			a.put(Instruction{Op: opJump, K: uint32(len(a.code) - int(next) - 1)})
		}
	}
	return a.put(in)
}

// program is the finished code, front to back.
func (a *assembler) program() []Instruction {
	out := make([]Instruction, len(a.code))
	for i, in := range a.code {
		out[len(out)-1-i] = in
	}
	return out
}

// Bytes is the program as the kernel reads it: an array of struct sock_filter.
func (f Filter) Bytes() []byte {
	b := make([]byte, 0, len(f.Instructions)*8)
	for _, in := range f.Instructions {
		b = binary.NativeEndian.AppendUint16(b, in.Op)
		b = append(b, in.Jt, in.Jf)
		b = binary.NativeEndian.AppendUint32(b, in.K)
	}
	return b
}
