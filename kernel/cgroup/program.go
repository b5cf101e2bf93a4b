package cgroup

import (
	"errors"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

const (
	loadWord  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W   // dst = *(u32*)(src+off)
	moveImm   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K // dst = imm
	moveReg32 = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	andImm    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	shiftImm  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	jumpNE    = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	jump      = unix.BPF_JMP | unix.BPF_JA
	exit      = unix.BPF_JMP | unix.BPF_EXIT
)

// Bits of bpf_cgroup_dev_ctx.access_type.
const (
	devBlock, devChar          = 1, 2
	devMknod, devRead, devWrit = 1, 2, 4
	devAll                     = devMknod | devRead | devWrit
)

// Program is the device rules as a BPF_PROG_TYPE_CGROUP_DEVICE program, in
// instructions of 8 bytes.
//
// Each kind of access is decided by the last rule that speaks of the device and
// of it. That is found out here, for each device that a rule names and for all
// others, so that the program only has to tell devices apart: by type, major
// and minor number. The kernel's verifier, which follows each way through a
// program, needs 80 µs for those of a runtime; it needed 400 for one that read
// rule by rule.
func Program(rules []DeviceRule) []uint64 {
	p := []uint64{
		sys.BPF(loadWord, 2, 1, 0, 0), // access<<16 | type
		sys.BPF(moveReg32, 3, 2, 0, 0),
		sys.BPF(andImm, 2, 0, 0, 0xffff), // type
		sys.BPF(shiftImm, 3, 0, 0, 16),   // access
		sys.BPF(loadWord, 4, 1, 4, 0),    // major
		sys.BPF(loadWord, 5, 1, 8, 0),    // minor
	}
	for _, t := range []struct {
		letter byte
		number int64
	}{{'b', devBlock}, {'c', devChar}} {
		p = append(p, unless(2, t.number, ofType(rules, t.letter))...)
	}
	p = append(p, verdict(0)...)
	used := false
	for i, in := range p {
		if in == toEnd {
			used = true
			p[i] = sys.BPF(jump, 0, 0, int16(len(p)-i-1), 0)
		}
	}
	if !used {
		return p
	}
	return append(p, // yes if no access is left
		sys.BPF(moveImm, 0, 0, 0, 0), sys.BPF(jumpNE, 3, 0, 1, 0), sys.BPF(moveImm, 0, 0, 0, 1), sys.BPF(exit, 0, 0, 0, 0))
}

// mostInstructions is how far a jump goes.
const mostInstructions = 1<<15 - 1

// toEnd stands for a jump to the end of the program until that is known.
var toEnd = sys.BPF(jump, 0, 0, 0, 0)

// unless does block only if the register has the value.
func unless(register uint8, value int64, block []uint64) []uint64 {
	return append([]uint64{sys.BPF(jumpNE, register, 0, int16(len(block)), int32(uint32(value)))}, block...)
}

// verdict answers yes if nothing but allowed is asked for.
func verdict(allowed int32) []uint64 {
	switch allowed {
	case devAll:
		return []uint64{sys.BPF(moveImm, 0, 0, 0, 1), sys.BPF(exit, 0, 0, 0, 0)}
	case 0:
		return []uint64{sys.BPF(moveImm, 0, 0, 0, 0), sys.BPF(exit, 0, 0, 0, 0)}
	}
	return []uint64{sys.BPF(andImm, 3, 0, 0, ^allowed), toEnd}
}

// none is a number that no rule names.
const none = -1

// ofType tells major numbers apart.
func ofType(rules []DeviceRule, letter byte) []uint64 {
	others := ofMajor(rules, letter, none)
	var p []uint64
	for _, major := range named(rules, func(r DeviceRule) (int64, bool) { return r.Major, r.isOf(letter) }) {
		if block := ofMajor(rules, letter, major); !slices.Equal(block, others) {
			p = append(p, unless(4, major, block)...)
		}
		if len(p) > mostInstructions {
			break // it is refused
		}
	}
	return append(p, others...)
}

// ofMajor tells minor numbers apart.
func ofMajor(rules []DeviceRule, letter byte, major int64) []uint64 {
	others := allowed(rules, letter, major, none)
	var p []uint64
	for _, minor := range named(rules, func(r DeviceRule) (int64, bool) {
		return r.Minor, r.isOf(letter) && (r.Major < 0 || r.Major == major)
	}) {
		if a := allowed(rules, letter, major, minor); a != others {
			p = append(p, unless(5, minor, verdict(a))...)
		}
	}
	return append(p, verdict(others)...)
}

// named are the numbers that rules name, in order.
func named(rules []DeviceRule, number func(DeviceRule) (int64, bool)) []int64 {
	var list []int64
	for _, r := range rules {
		if n, ok := number(r); ok && n >= 0 {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// isOf reports whether the rule speaks of the type.
func (r DeviceRule) isOf(letter byte) bool { return r.Type == letter || r.Type == 0 || r.Type == 'a' }

// allowed is what the last rules that speak of a device allow.
func allowed(rules []DeviceRule, letter byte, major, minor int64) (allow int32) {
	var judged int32
	for _, r := range slices.Backward(rules) {
		if !r.isOf(letter) || r.Major >= 0 && r.Major != major || r.Minor >= 0 && r.Minor != minor {
			continue
		}
		bits := bitsOf(r.access()) &^ judged
		if judged |= bits; r.Allow {
			allow |= bits
		}
		if judged == devAll {
			break
		}
	}
	return allow
}

// attachProgram puts the program of the step's rules before the cgroup, and in
// one go in the place of one that is there. Of several the new one is in force
// before the old ones go. What systemd put there for the unit goes too, as in
// runc: it knows the same rules.
func (s Step) attachProgram() error {
	at, err := sys.OpenDir(s.Path)
	if err != nil {
		return s.noProgram(err)
	}
	defer sys.Close(at)
	var old []uint32
	if !s.fresh() {
		if old, err = sys.BPFQuery(at, unix.BPF_CGROUP_DEVICE); err != nil {
			return s.noProgram(err)
		}
	}
	prog, err := sys.BPFLoad(unix.BPF_PROG_TYPE_CGROUP_DEVICE, unix.BPF_CGROUP_DEVICE, Program(s.Rules), "Apache-2.0", "kiste_devices")
	if err != nil {
		return s.noProgram(err)
	}
	defer sys.Close(prog)
	if len(old) == 1 {
		return s.noProgram(replaceProgram(at, prog, old[0]))
	}
	if err := sys.BPFAttach(at, prog, unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0); err != nil {
		return s.noProgram(err)
	}
	for _, id := range old {
		if err := detach(at, id); err != nil {
			return s.noProgram(err)
		}
	}
	return nil
}

// noProgram is the error of a device program.
func (s Step) noProgram(err error) error {
	if err == nil {
		return nil
	}
	e := &fault.Error{Op: "limit devices of cgroup", On: path.Base(s.Path), Err: err}
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		e.Kind, e.Hint = fault.Unsupported, "version 2 limits devices by BPF: the kernel needs CONFIG_CGROUP_BPF"
	} else if fault.KindOf(err) == fault.Denied {
		e.Hint = "loading a device program needs root (CAP_BPF and CAP_NET_ADMIN)"
	}
	return e
}

func replaceProgram(at, prog int, id uint32) error {
	old, err := sys.BPFByID(id)
	if err != nil {
		return err
	}
	defer sys.Close(old)
	return sys.BPFAttach(at, prog, unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI|unix.BPF_F_REPLACE, old)
}

func detach(at int, id uint32) error {
	fd, err := sys.BPFByID(id)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.BPFDetach(at, fd, unix.BPF_CGROUP_DEVICE)
}
