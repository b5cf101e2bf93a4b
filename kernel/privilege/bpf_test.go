package privilege

import (
	"encoding/binary"
	"fmt"
)

// seccompData is struct seccomp_data, as the kernel gives it to a filter.
type seccompData struct {
	nr, arch uint32
	args     [6]uint64
}

func (d seccompData) bytes(big bool) []byte {
	var order binary.AppendByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	b := order.AppendUint32(nil, d.nr)
	b = order.AppendUint32(b, d.arch)
	b = order.AppendUint64(b, 0)
	for _, a := range d.args {
		b = order.AppendUint64(b, a)
	}
	return b
}

// run is the kernel's interpreter of classic BPF, as far as seccomp goes. It
// gives the return value and the number of instructions executed.
func run(code []Instruction, d seccompData, big bool) (ret uint32, steps int, err error) {
	mem := d.bytes(big)
	var order binary.ByteOrder = binary.LittleEndian
	if big {
		order = binary.BigEndian
	}
	var acc uint32
	for pc := 0; pc < len(code); pc++ {
		in := code[pc]
		steps++
		jump := func(yes bool) {
			if yes {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		}
		switch in.Op {
		case opLoad:
			if in.K%4 != 0 || int(in.K) >= len(mem) {
				return 0, steps, fmt.Errorf("%d: load of offset %d", pc, in.K)
			}
			acc = order.Uint32(mem[in.K:])
		case opAnd:
			acc &= in.K
		case opJump:
			pc += int(in.K)
		case opEQ:
			jump(acc == in.K)
		case opGT:
			jump(acc > in.K)
		case opGE:
			jump(acc >= in.K)
		case opRet:
			return in.K, steps, nil
		default:
			return 0, steps, fmt.Errorf("%d: operation %#x", pc, in.Op)
		}
	}
	return 0, steps, fmt.Errorf("ran over the end")
}
