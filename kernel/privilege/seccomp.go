package privilege

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// A Filter is what seccomp(2) takes with SECCOMP_SET_MODE_FILTER: a program
// in a struct sock_fprog, and SECCOMP_FILTER_FLAG_ bits. With NewListener
// among the flags the call returns a descriptor.
type Filter struct {
	Instructions []Instruction
	Flags        uint
}

// The flags of seccomp(2), from linux/seccomp.h.
const (
	FlagTSync             = 1 << 0 // all threads of the process
	FlagLog               = 1 << 1
	FlagSpecAllow         = 1 << 2
	NewListener           = 1 << 3 // set when a rule notifies
	flagTSyncESRCH        = 1 << 4 // needed beside NewListener with FlagTSync
	FlagWaitKillableRecv  = 1 << 5
	MaxFilterInstructions = 4096 // BPF_MAXINSNS
)

// What a filter returns, from linux/seccomp.h; the low half is data.
const (
	retKillThread  = 0x00000000
	retKillProcess = 0x80000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000

	retENOSYS = retErrno | 38
	maxErrno  = 4095
)

// An arch is one way to make system calls, and its numbers.
type arch struct {
	goarch string // the name of its table
	audit  uint32 // AUDIT_ARCH_ of linux/audit.h
	wide   bool   // arguments have 64 bits
	big    bool   // big endian
}

// archOf knows the architectures of OCI for which there are numbers here.
func archOf(name specs.Arch) (arch, bool) {
	switch name {
	case specs.ArchX86_64:
		return arch{"amd64", 0xc000003e, true, false}, true
	case specs.ArchX86:
		return arch{"386", 0x40000003, false, false}, true
	case specs.ArchX32:
		// Its calls come as x86_64's, with a bit set in their number. Its
		// longs have 32 bits, and libseccomp compares no more.
		return arch{"x32", 0xc000003e, false, false}, true
	case specs.ArchAARCH64:
		return arch{"arm64", 0xc00000b7, true, false}, true
	case specs.ArchARM:
		return arch{"arm", 0x40000028, false, false}, true
	case specs.ArchRISCV64:
		return arch{"riscv64", 0xc00000f3, true, false}, true
	case specs.ArchLOONGARCH64:
		return arch{"loong64", 0xc0000102, true, false}, true
	case specs.ArchPPC64LE:
		return arch{"ppc64le", 0xc0000015, true, false}, true
	case specs.ArchS390X:
		return arch{"s390x", 0x80000016, true, true}, true
	}
	return arch{}, false
}

// nativeArch is OCI's name of a GOARCH, and the architectures whose calls its
// kernels take too.
func nativeArch(goarch string) (native specs.Arch, compat []specs.Arch) {
	switch goarch {
	case "amd64":
		return specs.ArchX86_64, []specs.Arch{specs.ArchX86, specs.ArchX32}
	case "arm64":
		return specs.ArchAARCH64, []specs.Arch{specs.ArchARM}
	case "386":
		return specs.ArchX86, nil
	case "arm":
		return specs.ArchARM, nil
	case "riscv64":
		return specs.ArchRISCV64, nil
	case "loong64":
		return specs.ArchLOONGARCH64, nil
	case "ppc64le":
		return specs.ArchPPC64LE, nil
	case "s390x":
		return specs.ArchS390X, nil
	}
	return "", nil
}

// ociArch reports whether OCI has an architecture of this name.
func ociArch(name specs.Arch) bool {
	switch name {
	case specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64, specs.ArchMIPS,
		specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC,
		specs.ArchPARISC64, specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB:
		return true
	}
	return false
}

// A condition is one comparison of an argument.
type condition struct {
	arg   uint
	op    specs.LinuxSeccompOperator
	value uint64 // the mask of SCMP_CMP_MASKED_EQ
	two   uint64 // what is left under the mask
}

// A rule is what to return when all conditions hold.
type rule struct {
	ret   uint32
	conds []condition
}

// A call is a system call's number in the upper half and in the lower half
// which of the compiler's rules is for it: sorted, the rules of one number
// stand together in the profile's order.
type call uint64

func (c call) nr() uint32 { return uint32(c >> 32) }

// Compile turns an OCI profile into a filter for a kernel of architecture
// goarch, as runc and libseccomp would, with a binary search over the numbers
// in place of a list.
//
// The native architecture is always covered; of the others listed, those that
// such a kernel takes. A call by any other kills the process. Names of system
// calls that are not known are skipped. Where the default action refuses,
// calls newer than the newest that the profile names return ENOSYS in place of
// it, so that programs fall back to what they did before (runc's rule). The
// old calls socketcall and ipc follow the rules of what they multiplex, as far
// as these look at no argument, unless the profile names them.
//
// Of several rules for one call an unconditional one replaces those that are
// laxer, and the first of several unconditional ones counts; of conditional
// ones that hold, the strictest counts. Two conditions on the same argument
// of one rule are two rules (runc reads them so); else all must hold. An
// architecture of 32 bits compares the lower half of a value.
//
// A nil Flags means SPEC_ALLOW, as in runc. Errors are fault.Invalid and name
// the field of the profile.
func Compile(spec *specs.LinuxSeccomp, goarch string) (Filter, error) {
	c := compiler{}
	if err := c.read(spec, goarch); err != nil {
		return Filter{}, err
	}
	for i, entry := range spec.Syscalls {
		if err := c.readRule(i, entry); err != nil {
			return Filter{}, err
		}
	}
	program := c.program()
	if len(program) > MaxFilterInstructions {
		return Filter{}, badField("syscalls", "", fmt.Errorf("the filter needs %d instructions, and the kernel takes %d", len(program), MaxFilterInstructions))
	}
	flags, err := c.flags(spec.Flags)
	return Filter{program, flags}, err
}

// A compiler collects the rules by architecture.
type compiler struct {
	archs    []arch
	rules    []rule
	calls    [][]call // beside archs
	fallback uint32   // the default action
	enosys   bool     // calls newer than the profile get ENOSYS
	muxed    [2]bool  // the profile names socketcall, ipc
	notify   bool
	pairs    int // of a name and a rule
}

// maxPairs bounds the work that a small but hostile profile can make: many
// names with many conditions are a rule for each pair.
const maxPairs = 1 << 16

func badField(field, value string, err error) error {
	return &fault.Error{Op: "compile seccomp profile, field", On: field, Kind: fault.Invalid, Err: fmt.Errorf("%q: %w", value, err)}
}

var errUnknown = errors.New("it is not known to OCI")

func (c *compiler) read(spec *specs.LinuxSeccomp, goarch string) error {
	native, compat := nativeArch(goarch)
	if native == "" {
		return &fault.Error{Op: "compile seccomp profile for", On: goarch, Kind: fault.Unsupported}
	}
	var err error
	if c.fallback, err = action(spec.DefaultAction, spec.DefaultErrnoRet); err != nil {
		return badField("defaultAction", string(spec.DefaultAction), err)
	}
	if c.fallback == retNotify {
		return badField("defaultAction", string(spec.DefaultAction), fmt.Errorf("it cannot be the default, since nobody would be left to answer"))
	}
	c.enosys = c.fallback != retENOSYS && !permissive(c.fallback)
	wanted := []specs.Arch{native}
	for i, name := range spec.Architectures {
		if !ociArch(name) {
			return badField(fmt.Sprintf("architectures[%d]", i), string(name), errUnknown)
		}
		if slices.Contains(compat, name) && !slices.Contains(wanted, name) {
			wanted = append(wanted, name)
		}
	}
	for _, name := range wanted {
		a, _ := archOf(name)
		c.archs = append(c.archs, a)
	}
	c.calls = make([][]call, len(c.archs))
	for _, entry := range spec.Syscalls {
		c.muxed[0] = c.muxed[0] || slices.Contains(entry.Names, "socketcall")
		c.muxed[1] = c.muxed[1] || slices.Contains(entry.Names, "ipc")
	}
	return nil
}

// permissive actions let a call happen; a tracer answers new calls itself.
func permissive(ret uint32) bool {
	return ret == retAllow || ret == retLog || ret&0xffff0000 == retTrace
}

// action is what a filter returns for an action.
func action(name specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	ret, limit := uint32(0), uint(0)
	switch name {
	case specs.ActKill, specs.ActKillThread:
		ret = retKillThread
	case specs.ActKillProcess:
		ret = retKillProcess
	case specs.ActTrap:
		ret = retTrap
	case specs.ActErrno:
		ret, limit = retErrno, maxErrno
	case specs.ActTrace:
		ret, limit = retTrace, 0xffff
	case specs.ActAllow:
		ret = retAllow
	case specs.ActLog:
		ret = retLog
	case specs.ActNotify:
		ret = retNotify
	default:
		return 0, errUnknown
	}
	switch {
	case limit == 0 && errno != nil:
		return 0, fmt.Errorf("this action takes no errno, and the profile gives %d", *errno)
	case limit == 0:
		return ret, nil
	case errno == nil:
		return ret | 1, nil // EPERM
	case *errno > limit:
		return 0, fmt.Errorf("errno %d is above %d", *errno, limit)
	}
	return ret | uint32(*errno), nil
}

func (c *compiler) readRule(i int, entry specs.LinuxSyscall) error {
	ret, err := action(entry.Action, entry.ErrnoRet)
	if err != nil {
		return badField(fmt.Sprintf("syscalls[%d].action", i), string(entry.Action), err)
	}
	if ret == retNotify {
		c.notify = true
		if slices.Contains(entry.Names, "write") {
			return badField(fmt.Sprintf("syscalls[%d].names", i), "write", fmt.Errorf("it cannot be notified: the runtime itself would wait for ever"))
		}
	}
	rules, err := split(i, ret, entry.Args)
	if err != nil {
		return err
	}
	if c.pairs += len(entry.Names) * len(rules); c.pairs > maxPairs {
		return badField(fmt.Sprintf("syscalls[%d]", i), string(entry.Action), fmt.Errorf("the profile has more than %d rules", maxPairs))
	}
	first := len(c.rules)
	c.rules = append(c.rules, rules...)
	for _, name := range entry.Names {
		c.add(name, first, len(rules))
	}
	return nil
}

// split makes the rules of one entry: one, or one for each condition where
// two look at the same argument.
func split(i int, ret uint32, args []specs.LinuxSeccompArg) ([]rule, error) {
	conds := make([]condition, 0, len(args))
	seen, twice := [6]bool{}, false
	for j, arg := range args {
		field := fmt.Sprintf("syscalls[%d].args[%d]", i, j)
		if arg.Index > 5 {
			return nil, badField(field+".index", fmt.Sprint(arg.Index), fmt.Errorf("a system call has arguments 0 to 5"))
		}
		switch arg.Op {
		case specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		default:
			return nil, badField(field+".op", string(arg.Op), errUnknown)
		}
		twice = twice || seen[arg.Index]
		seen[arg.Index] = true
		conds = append(conds, condition{arg.Index, arg.Op, arg.Value, arg.ValueTwo & arg.Value})
	}
	if !twice {
		return []rule{{ret, conds}}, nil
	}
	var rules []rule
	for j := range conds {
		rules = append(rules, rule{ret, conds[j : j+1]})
	}
	return rules, nil
}

// add makes n rules from first on those of a system call, in every
// architecture that has one of that name.
func (c *compiler) add(name string, first, n int) {
	for a, arch := range c.archs {
		if nr, ok := syscallNumber(syscallTable(arch.goarch), name); ok {
			for i := range n {
				c.calls[a] = append(c.calls[a], call(nr)<<32|call(first+i))
			}
		}
	}
	if c.muxed[0] && c.muxed[1] || len(c.rules[first].conds) > 0 {
		return
	}
	if through, argument := muxed(name); argument != 0 && !c.muxed[0] && through == "socketcall" || argument != 0 && !c.muxed[1] && through == "ipc" {
		c.addMuxed(through, rule{c.rules[first].ret, []condition{{0, specs.OpEqualTo, argument, 0}}})
	}
}

// addMuxed adds a rule for socketcall or ipc.
func (c *compiler) addMuxed(name string, r rule) {
	c.rules = append(c.rules, r)
	c.add(name, len(c.rules)-1, 1)
}

func (c *compiler) flags(names []specs.LinuxSeccompFlag) (uint, error) {
	flags := uint(0)
	if names == nil {
		flags = FlagSpecAllow
	}
	for i, name := range names {
		switch name {
		case "SECCOMP_FILTER_FLAG_TSYNC":
			flags |= FlagTSync
		case specs.LinuxSeccompFlagLog:
			flags |= FlagLog
		case specs.LinuxSeccompFlagSpecAllow:
			flags |= FlagSpecAllow
		case specs.LinuxSeccompFlagWaitKillableRecv:
			flags |= FlagWaitKillableRecv
		default:
			return 0, badField(fmt.Sprintf("flags[%d]", i), string(name), errUnknown)
		}
	}
	if !c.notify {
		return flags &^ FlagWaitKillableRecv, nil // the kernel takes it with a listener only
	}
	if flags&FlagTSync != 0 {
		flags |= flagTSyncESRCH
	}
	return flags | NewListener, nil
}

// x32Bit marks the numbers of x32; armOwn and up are calls that only ARM has
// and that say nothing about the age of a profile.
const (
	x32Bit = 0x40000000
	armOwn = 0xf0000
	noCall = 0xffffffff // what a tracer writes to skip a call
)

// A span is the numbers from lo up to the next span's, and what happens to
// them: a plain return, or rules and then the return.
type span struct {
	lo    uint32
	ret   uint32
	rules []rule
	wide  bool // of rules: arguments have 64 bits
}

// spans cuts the numbers of c.archs[a] from lo on into spans.
func (c *compiler) spans(lo uint32, a int) []span {
	calls := c.calls[a]
	slices.Sort(calls)
	newer := uint32(noCall) // the first number newer than the profile
	for _, call := range calls {
		if c.enosys && call.nr()&^x32Bit < armOwn {
			newer = call.nr() + 1
		}
	}
	var out []span
	next := lo
	gap := func() span {
		if next >= newer {
			return span{lo: next, ret: retENOSYS}
		}
		return span{lo: next, ret: c.fallback}
	}
	for len(calls) > 0 {
		nr, n := calls[0].nr(), 1
		for n < len(calls) && calls[n].nr() == nr {
			n++
		}
		if nr > next {
			out = append(out, gap())
		}
		out = append(out, c.decide(nr, calls[:n], c.archs[a].wide))
		calls, next = calls[n:], nr+1
	}
	return merge(append(out, gap()))
}

// decide puts the rules of one number into the order in which they are tried.
func (c *compiler) decide(nr uint32, calls []call, wide bool) span {
	s := span{lo: nr, ret: c.fallback, wide: wide}
	always := false
	for _, call := range calls {
		switch r := c.rules[uint32(call)]; {
		case len(r.conds) > 0:
			s.rules = append(s.rules, r)
		case !always && r.ret != c.fallback:
			s.ret, always = r.ret, true
		}
	}
	if always {
		s.rules = slices.DeleteFunc(s.rules, func(r rule) bool { return strictness(r.ret) >= strictness(s.ret) })
	}
	slices.SortStableFunc(s.rules, func(a, b rule) int { return cmp.Compare(strictness(a.ret), strictness(b.ret)) })
	return s
}

// strictness orders actions as the kernel does among several filters: the
// smallest wins.
func strictness(ret uint32) int32 { return int32(ret & 0xffff0000) }

// merge joins neighbours that do the same.
func merge(spans []span) []span {
	out := spans[:1]
	for _, s := range spans[1:] {
		last := &out[len(out)-1]
		if s.rules == nil && last.rules == nil && s.ret == last.ret {
			continue
		}
		out = append(out, s)
	}
	return out
}
