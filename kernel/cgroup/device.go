package cgroup

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// wrong says what is wrong with r; empty: nothing.
func (r DeviceRule) wrong() string {
	switch {
	case r.Type != 0 && r.Type != 'a' && r.Type != 'b' && r.Type != 'c':
		return "a type is a, b or c"
	case strings.Trim(r.Access, "rwm") != "":
		return "access is made of r, w and m"
	case r.Major < -1 || r.Minor < -1 || r.Major > 1<<32-1 || r.Minor > 1<<32-1:
		return "a number is out of range"
	}
	return ""
}

func (r DeviceRule) access() string {
	if r.Access == "" {
		return "rwm"
	}
	return r.Access
}

func (r DeviceRule) file() string {
	if r.Allow {
		return "devices.allow"
	}
	return "devices.deny"
}

// v1 is the rule in the words of devices.allow and devices.deny, where "a" is
// all and everything, whatever stands behind it.
func (r DeviceRule) v1() []string {
	types := []string{string(r.Type)}
	if r.Type == 0 || r.Type == 'a' {
		types = []string{"b", "c"}
		if r.Major < 0 && r.Minor < 0 && len(r.access()) == 3 {
			return []string{"a"}
		}
	}
	var out []string
	for _, t := range types {
		out = append(out, fmt.Sprintf("%s %s:%s %s", t, anyNumber(r.Major), anyNumber(r.Minor), r.access()))
	}
	return out
}

func anyNumber(n int64) string {
	if n < 0 {
		return "*"
	}
	return strconv.FormatInt(n, 10)
}

// ParseDeviceRule reads a rule as Docker's --device-cgroup-rule and version
// 1's files write it: "c 1:3 rwm", "b *:* m", "a".
func ParseDeviceRule(s string, allow bool) (DeviceRule, error) {
	bad := &fault.Error{Op: "parse device rule", On: s, Kind: fault.Invalid, Err: errText(`want a rule such as "c 1:3 rwm"`)}
	f := strings.Fields(s)
	if len(f) == 0 || len(f) > 3 || len(f[0]) != 1 {
		return DeviceRule{}, bad
	}
	r := DeviceRule{Allow: allow, Type: f[0][0], Major: -1, Minor: -1}
	if len(f) > 1 {
		major, minor, ok := strings.Cut(f[1], ":")
		var err1, err2 error
		r.Major, err1 = parseNumber(major)
		r.Minor, err2 = parseNumber(minor)
		if !ok || err1 != nil || err2 != nil {
			return DeviceRule{}, bad
		}
	}
	if len(f) > 2 {
		r.Access = f[2]
	}
	if len(r.Access) > 3 || r.wrong() != "" {
		return DeviceRule{}, bad
	}
	return r, nil
}

func parseNumber(s string) (int64, error) {
	if s == "*" {
		return -1, nil
	}
	v, err := strconv.ParseUint(s, 10, 32)
	return int64(v), err
}

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
	for i := len(rules) - 1; i >= 0; i-- {
		p = append(p, block(rules[i])...)
	}
	return append(p, instruction(moveImm, 0, 0, 0, 0), instruction(exit, 0, 0, 0, 0))
}

// block is one rule: tests that jump behind it when they fail, then its
// verdict.
func block(r DeviceRule) []uint64 {
	var bits int32
	for _, c := range r.access() {
		bits |= map[rune]int32{'r': devRead, 'w': devWrit, 'm': devMknod}[c]
	}
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

// guard puts the program of rules before the cgroup dir and takes away those
// that were there: the new one is in force before the old ones go.
func guard(dir string, rules []DeviceRule) error {
	fail := func(err error) error {
		e := &fault.Error{Op: "limit devices of cgroup", On: path.Base(dir), Err: err}
		if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
			e.Kind, e.Hint = fault.Unsupported, "version 2 limits devices by BPF: the kernel needs CONFIG_CGROUP_BPF"
		} else if fault.KindOf(err) == fault.Denied {
			e.Hint = "loading a device program needs root (CAP_BPF and CAP_NET_ADMIN)"
		}
		return e
	}
	at, err := sys.OpenDir(dir)
	if err != nil {
		return fail(err)
	}
	defer sys.Close(at)
	old, err := sys.BPFQuery(at, unix.BPF_CGROUP_DEVICE)
	if err != nil {
		return fail(err)
	}
	prog, err := sys.BPFLoad(unix.BPF_PROG_TYPE_CGROUP_DEVICE, unix.BPF_CGROUP_DEVICE, Program(rules), "Apache-2.0")
	if err != nil {
		return fail(err)
	}
	defer sys.Close(prog)
	if err := sys.BPFAttach(at, prog, unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI); err != nil {
		return fail(err)
	}
	for _, id := range old {
		if err := detach(at, id); err != nil {
			return fail(err)
		}
	}
	return nil
}

func detach(at int, id uint32) error {
	fd, err := sys.BPFByID(id)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.BPFDetach(at, fd, unix.BPF_CGROUP_DEVICE)
}
