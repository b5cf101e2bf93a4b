package privilege

import "fmt"

// Allows reports whether a process under the filter may make the system call
// name of its GOARCH with these arguments. Nothing else is asked first: what goes
// to a listener or a tracer is not allowed. A filter without instructions allows
// all.
func (f Filter) Allows(goarch, name string, args ...uint64) bool {
	if len(f.Instructions) == 0 {
		return true
	}
	native, _ := nativeArch(goarch)
	a, known := archOf(native)
	nr, has := syscallNumber(syscallTable(a.goarch), name)
	if !known || !has {
		return false
	}
	d := seccompData{nr: nr, arch: a.audit}
	copy(d.args[:], args)
	ret, _, err := run(f.Instructions, d, a.big)
	return err == nil && (ret == retAllow || ret == retLog)
}

// seccompData is struct seccomp_data, as the kernel gives it to a filter.
type seccompData struct {
	nr, arch uint32
	args     [6]uint64
}

// word is the 32 bits at an offset.
func (d seccompData) word(off uint32, big bool) uint32 {
	switch {
	case off == 0:
		return d.nr
	case off == 4:
		return d.arch
	case off < 16:
		return 0
	}
	arg := d.args[(off-16)/8]
	if (off%8 == 0) == big {
		return uint32(arg >> 32)
	}
	return uint32(arg)
}

// run is the kernel's interpreter of classic BPF, as far as seccomp goes. It
// gives the return value and the number of instructions executed.
func run(code []Instruction, d seccompData, big bool) (ret uint32, steps int, err error) {
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
			if in.K%4 != 0 || in.K >= 64 {
				return 0, steps, fmt.Errorf("%d: load of offset %d", pc, in.K)
			}
			acc = d.word(in.K, big)
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
