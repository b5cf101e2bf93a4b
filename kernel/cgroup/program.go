package cgroup

import (
	"errors"
	"path"
	"slices"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// An instruction of BPF, 8 bytes: opcode, registers, jump offset, number.
// Source: Documentation/bpf/standardization/instruction-set.rst.
func instruction(op uint8, dst, src uint8, off int16, imm int32) uint64 {
	return uint64(op) | uint64(src<<4|dst)<<8 | uint64(uint16(off))<<16 | uint64(uint32(imm))<<32
}

const (
	loadWord  = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W   // dst = *(u32*)(src+off)
	moveImm   = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K // dst = imm
	moveReg32 = unix.BPF_ALU | unix.BPF_MOV | unix.BPF_X
	andImm    = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	shiftImm  = unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K
	jumpNE    = unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_K
	jumpEQ    = unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K
	exit      = unix.BPF_JMP | unix.BPF_EXIT
)

// Bits of bpf_cgroup_dev_ctx.access_type.
const (
	devBlock, devChar          = 1, 2
	devMknod, devRead, devWrit = 1, 2, 4
)

// Program is the device rules as a BPF_PROG_TYPE_CGROUP_DEVICE program, in
// instructions of 8 bytes.
//
// Register 3 holds the kinds of access that are asked for and not yet judged.
// Rules are taken from the last to the first: one that allows takes its bits
// out, and when none are left the answer is yes; one that denies a bit that is
// left answers no. At the end the answer is no. So each kind of access is
// decided by the last rule that speaks of it.
func Program(rules []DeviceRule) []uint64 {
	p := []uint64{
		instruction(loadWord, 2, 1, 0, 0), // access<<16 | type
		instruction(moveReg32, 3, 2, 0, 0),
		instruction(andImm, 2, 0, 0, 0xffff), // type
		instruction(shiftImm, 3, 0, 0, 16),   // access
		instruction(loadWord, 4, 1, 4, 0),    // major
		instruction(loadWord, 5, 1, 8, 0),    // minor
		instruction(moveImm, 0, 0, 0, 1),
		instruction(jumpNE, 3, 0, 1, 0),
		instruction(exit, 0, 0, 0, 0), // nothing is asked for
	}
	for _, r := range slices.Backward(rules) {
		p = append(p, block(r)...)
		if r.everything() {
			break // what stands before counts no more
		}
	}
	return append(p, instruction(moveImm, 0, 0, 0, 0), instruction(exit, 0, 0, 0, 0))
}

// block is one rule: tests that jump behind it when they fail, then its
// verdict.
func block(r DeviceRule) []uint64 {
	bits := bitsOf(r.access())
	verdict := []uint64{ // deny: answer no if one of bits is asked for
		instruction(moveReg32, 6, 3, 0, 0),
		instruction(andImm, 6, 0, 0, bits),
		instruction(jumpEQ, 6, 0, 2, 0),
		instruction(moveImm, 0, 0, 0, 0),
		instruction(exit, 0, 0, 0, 0),
	}
	if r.Allow { // take bits out; answer yes when none are left
		verdict = []uint64{
			instruction(andImm, 3, 0, 0, ^bits),
			instruction(jumpNE, 3, 0, 2, 0),
			instruction(moveImm, 0, 0, 0, 1),
			instruction(exit, 0, 0, 0, 0),
		}
	}
	type test struct {
		register uint8
		value    int64
	}
	var tests []test
	switch r.Type {
	case 'b':
		tests = append(tests, test{2, devBlock})
	case 'c':
		tests = append(tests, test{2, devChar})
	}
	if r.Major >= 0 {
		tests = append(tests, test{4, r.Major})
	}
	if r.Minor >= 0 {
		tests = append(tests, test{5, r.Minor})
	}
	var out []uint64
	for i, t := range tests {
		behind := len(tests) - i - 1 + len(verdict)
		out = append(out, instruction(jumpNE, t.register, 0, int16(behind), int32(uint32(t.value))))
	}
	return append(out, verdict...)
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
	prog, err := sys.BPFLoad(unix.BPF_PROG_TYPE_CGROUP_DEVICE, unix.BPF_CGROUP_DEVICE, Program(s.Rules), "Apache-2.0")
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
