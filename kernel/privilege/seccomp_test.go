package privilege

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

var update = flag.Bool("update", false, "rewrite the precompiled filters")

func TestPrecompiledFiltersAreWhatTheCompilerMakes(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		f, err := compileDefault(DefaultCaps, arch)
		if err != nil {
			t.Fatal(err)
		}
		file := "default_" + arch + ".bpf"
		if *update {
			if err := os.WriteFile(file, pack(f.Instructions), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		have, err := os.ReadFile(file)
		if err != nil || string(have) != string(pack(f.Instructions)) {
			t.Errorf("%s is not what the compiler makes (%v): go test -run Precompiled -update", file, err)
		}
		if !slices.Equal(unpack(string(have)), f.Instructions) || f.Flags != FlagSpecAllow {
			t.Errorf("%s: unpacked it is another filter", file)
		}
		t.Logf("%s: %d instructions", arch, len(f.Instructions))
	}
}

func TestProfileCapsAreThoseTheDefaultProfileAsksAbout(t *testing.T) {
	var want Caps
	for n := range caps {
		if strings.Contains(string(defaultJSON), `"`+caps[n].name+`"`) {
			want |= 1 << n
		}
	}
	if profileCaps != want {
		t.Errorf("profileCaps = %v; the profile asks about %v", profileCaps, want)
	}
}

func uintp(n uint) *uint { return &n }

// A model is the rules of Compile's comment, applied to one call the naive
// way. It resolves the names once and goes through all of them for each call.
type model struct {
	spec     *specs.LinuxSeccomp
	archs    []arch
	x32      bool
	fallback uint32
	byArch   [][]modelRule
}

type modelRule struct {
	nr   uint32
	ret  uint32
	args []specs.LinuxSeccompArg
}

func newModel(spec *specs.LinuxSeccomp, goarch string) *model {
	m := &model{spec: spec}
	m.fallback, _ = action(spec.DefaultAction, spec.DefaultErrnoRet)
	native, compat := nativeArch(goarch)
	names := []specs.Arch{native}
	for _, a := range spec.Architectures {
		if slices.Contains(compat, a) && !slices.Contains(names, a) {
			names = append(names, a)
		}
	}
	m.x32 = slices.Contains(names, specs.ArchX32)
	for _, name := range names {
		a, _ := archOf(name)
		m.archs = append(m.archs, a)
		m.byArch = append(m.byArch, m.resolve(a))
	}
	return m
}

func (m *model) resolve(a arch) []modelRule {
	named := func(n string) bool {
		return slices.ContainsFunc(m.spec.Syscalls, func(s specs.LinuxSyscall) bool { return slices.Contains(s.Names, n) })
	}
	var rules []modelRule
	for _, s := range m.spec.Syscalls {
		ret, _ := action(s.Action, s.ErrnoRet)
		for _, name := range s.Names {
			if nr, ok := Syscall(a.goarch, name); ok {
				rules = append(rules, modelRule{nr, ret, s.Args})
			}
			through, k := muxed(name)
			if nr, ok := Syscall(a.goarch, through); ok && k != 0 && len(s.Args) == 0 && !named(through) {
				rules = append(rules, modelRule{nr, ret, []specs.LinuxSeccompArg{{Index: 0, Value: k, Op: specs.OpEqualTo}}})
			}
		}
	}
	return rules
}

func (m *model) says(d seccompData) uint32 {
	isX32 := d.arch == 0xc000003e && d.nr >= x32Bit && (d.nr != noCall || m.x32)
	for i, a := range m.archs {
		if a.audit == d.arch && (a.goarch == "x32") == isX32 {
			return m.inArch(a, m.byArch[i], d)
		}
	}
	return retKillProcess
}

func (m *model) inArch(a arch, rules []modelRule, d seccompData) uint32 {
	newest, any, known := uint32(0), false, false
	var always, holding []uint32
	for _, r := range rules {
		if r.nr&^x32Bit < armOwn {
			newest, any = max(newest, r.nr), true
		}
		if r.nr != d.nr {
			continue
		}
		known = true
		switch {
		case len(r.args) > 0 && modelArgs(a, r.args, d):
			holding = append(holding, r.ret)
		case len(r.args) == 0 && r.ret != m.fallback:
			always = append(always, r.ret)
		}
	}
	lax := m.fallback == retAllow || m.fallback == retLog || m.fallback>>16 == retTrace>>16
	if any && !known && d.nr > newest && !lax {
		return retENOSYS
	}
	if len(always) > 0 {
		holding = slices.DeleteFunc(holding, func(r uint32) bool { return strictness(r) >= strictness(always[0]) })
		holding = append(holding, always[0])
	}
	if len(holding) > 0 {
		return slices.MinFunc(holding, func(x, y uint32) int { return cmp.Compare(strictness(x), strictness(y)) })
	}
	return m.fallback
}

func modelArgs(a arch, args []specs.LinuxSeccompArg, d seccompData) bool {
	twice := false
	for i := range args {
		for j := range i {
			twice = twice || args[i].Index == args[j].Index
		}
	}
	if twice {
		return slices.ContainsFunc(args, func(x specs.LinuxSeccompArg) bool { return modelArg(a, x, d) })
	}
	return !slices.ContainsFunc(args, func(x specs.LinuxSeccompArg) bool { return !modelArg(a, x, d) })
}

func modelArg(a arch, x specs.LinuxSeccompArg, d seccompData) bool {
	have, value, two := d.args[x.Index], x.Value, x.ValueTwo
	if !a.wide {
		have, value, two = have&0xffffffff, value&0xffffffff, two&0xffffffff
	}
	switch x.Op {
	case specs.OpEqualTo:
		return have == value
	case specs.OpNotEqual:
		return have != value
	case specs.OpLessThan:
		return have < value
	case specs.OpLessEqual:
		return have <= value
	case specs.OpGreaterThan:
		return have > value
	case specs.OpGreaterEqual:
		return have >= value
	}
	return have&value == two&value
}

// samples are values around every boundary of the profile's conditions.
func samples(spec *specs.LinuxSeccomp) []uint64 {
	set := map[uint64]bool{0: true, 1: true, ^uint64(0): true, 1 << 32: true, 0xffffffff: true}
	for _, s := range spec.Syscalls {
		for _, a := range s.Args {
			for _, v := range []uint64{a.Value, a.ValueTwo, a.Value | a.ValueTwo} {
				for _, x := range []uint64{v - 1, v, v + 1, v ^ 1<<32, v ^ 1<<63, ^v} {
					set[x] = true
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// numbers are every number that a table names, their neighbours, and some
// that no table names.
var numbers = sync.OnceValue(func() []uint32 {
	set := map[uint32]bool{noCall: true, noCall - 1: true, x32Bit - 1: true, x32Bit: true, 1 << 31: true, 1000: true, x32Bit + 1000: true}
	for _, arch := range []string{"amd64", "x32", "386", "arm64", "arm", "riscv64", "loong64", "ppc64le", "s390x"} {
		for line := range strings.Lines(syscallTable(arch)) {
			var name string
			var nr uint32
			fmt.Sscan(line, &name, &nr)
			set[nr-1], set[nr], set[nr+1] = true, true, true
		}
	}
	return slices.Sorted(maps.Keys(set))
})

// audits are the AUDIT_ARCH_ values that a filter may meet.
var audits = []uint32{0xc000003e, 0x40000003, 0xc00000b7, 0x40000028, 0xc00000f3, 0xc0000102, 0xc0000015, 0x80000016, 0}

// compare runs the filter on every number with every sample in every argument
// that the profile looks at.
func compare(t *testing.T, spec *specs.LinuxSeccomp, goarch string) {
	t.Helper()
	f, err := Compile(spec, goarch)
	if err != nil {
		t.Fatal(err)
	}
	native, _ := nativeArch(goarch)
	a, _ := archOf(native)
	values := samples(spec)
	naive := newModel(spec, goarch)
	conditional := map[string]bool{"socketcall": true, "ipc": true}
	for _, s := range spec.Syscalls {
		for _, n := range s.Names {
			conditional[n] = conditional[n] || len(s.Args) > 0
		}
	}
	looksAtArgs := map[uint32]bool{}
	for n, yes := range conditional {
		for _, arch := range []string{"amd64", "x32", "386", "arm64", "arm", "riscv64", "loong64", "ppc64le", "s390x"} {
			if nr, ok := Syscall(arch, n); ok && yes {
				looksAtArgs[nr] = true
			}
		}
	}
	bad := 0
	check := func(d seccompData) {
		got, _, err := run(f.Instructions, d, a.big)
		if want := naive.says(d); (err != nil || got != want) && bad < 10 {
			bad++
			t.Errorf("%s: %+v: the filter says %#x (%v), the profile %#x", goarch, d, got, err, want)
		}
	}
	random := rand.New(rand.NewPCG(1, 2))
	all := numbers()
	for _, audit := range audits {
		for _, nr := range all {
			d := seccompData{nr: nr, arch: audit}
			check(d)
			if !looksAtArgs[nr] {
				continue
			}
			for i := range 6 {
				for _, v := range values {
					d.args = [6]uint64{}
					d.args[i] = v
					check(d)
				}
			}
			for range 50 {
				for i := range d.args {
					d.args[i] = values[random.IntN(len(values))]
				}
				check(d)
			}
		}
		if bad > 0 {
			return
		}
	}
}

var goarchs = []string{"amd64", "arm64", "riscv64", "loong64", "ppc64le", "s390x", "386", "arm"}

// The proof: for every call and sampled arguments the program returns what
// the profile says.
func TestTheDefaultFilterDoesWhatTheDefaultProfileSays(t *testing.T) {
	for _, goarch := range goarchs {
		for _, caps := range []Caps{DefaultCaps, 0, AllCaps(), DefaultCaps | 1<<21} {
			t.Run(fmt.Sprintf("%s %x", goarch, uint64(caps)), func(t *testing.T) {
				spec, err := DefaultProfile(caps, goarch)
				if err != nil {
					t.Fatal(err)
				}
				compare(t, spec, goarch)
			})
		}
	}
}

func TestFiltersDoWhatRandomProfilesSay(t *testing.T) {
	for seed := range uint64(100) {
		random := rand.New(rand.NewPCG(seed, 7))
		goarch := goarchs[random.IntN(len(goarchs))]
		spec := randomProfile(random)
		compare(t, spec, goarch)
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, spec)
		}
	}
}

func randomProfile(r *rand.Rand) *specs.LinuxSeccomp {
	actions := []specs.LinuxSeccompAction{specs.ActKill, specs.ActKillProcess, specs.ActKillThread, specs.ActTrap, specs.ActErrno, specs.ActTrace, specs.ActAllow, specs.ActLog, specs.ActNotify}
	names := []string{"read", "openat", "socket", "socketcall", "shmget", "ipc", "personality", "clone", "mmap2", "set_tls", "futex", "ioctl", "statx", "no_such_call", "process_mrelease", "chown32"}
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpEqualTo, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	values := []uint64{0, 1, 2, 3, 7, 0xffffffff, 1 << 32, 1<<32 | 1, 2<<32 | 5, ^uint64(0), 0x7e020000}
	spec := &specs.LinuxSeccomp{DefaultAction: actions[r.IntN(8)], Flags: []specs.LinuxSeccompFlag{}}
	for _, a := range []specs.Arch{specs.ArchX86, specs.ArchX32, specs.ArchARM, specs.ArchPARISC, specs.ArchX86_64} {
		if r.IntN(2) == 0 {
			spec.Architectures = append(spec.Architectures, a)
		}
	}
	for range r.IntN(40) {
		s := specs.LinuxSyscall{Action: actions[r.IntN(len(actions))]}
		if s.Action == specs.ActErrno && r.IntN(2) == 0 {
			s.ErrnoRet = uintp(uint(r.IntN(100)))
		}
		for range 1 + r.IntN(3) {
			s.Names = append(s.Names, names[r.IntN(len(names))])
		}
		for range r.IntN(4) {
			s.Args = append(s.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Op: ops[r.IntN(len(ops))], Value: values[r.IntN(len(values))], ValueTwo: values[r.IntN(len(values))]})
		}
		spec.Syscalls = append(spec.Syscalls, s)
	}
	return spec
}

func TestCompileRefuses(t *testing.T) {
	const allow, errno = specs.ActAllow, specs.ActErrno
	rule := func(s specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: allow, Syscalls: []specs.LinuxSyscall{s}}
	}
	arg := func(a specs.LinuxSeccompArg) *specs.LinuxSeccomp {
		return rule(specs.LinuxSyscall{Names: []string{"read"}, Action: errno, Args: []specs.LinuxSeccompArg{a}})
	}
	for _, tt := range []struct {
		name string
		spec *specs.LinuxSeccomp
		says string
	}{
		{"no default action", &specs.LinuxSeccomp{}, "defaultAction"},
		{"an unknown default action", &specs.LinuxSeccomp{DefaultAction: "SCMP_ACT_PRAY"}, "defaultAction"},
		{"notify as the default", &specs.LinuxSeccomp{DefaultAction: specs.ActNotify}, "defaultAction"},
		{"an unknown architecture", &specs.LinuxSeccomp{DefaultAction: allow, Architectures: []specs.Arch{"SCMP_ARCH_Z80"}}, "architectures[0]"},
		{"an unknown flag", &specs.LinuxSeccomp{DefaultAction: allow, Flags: []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_X"}}, "flags[0]"},
		{"an unknown action", rule(specs.LinuxSyscall{Action: "SCMP_ACT_PRAY"}), "syscalls[0].action"},
		{"an errno where none goes", rule(specs.LinuxSyscall{Action: allow, ErrnoRet: uintp(1)}), "syscalls[0].action"},
		{"an errno the kernel would cut", rule(specs.LinuxSyscall{Action: errno, ErrnoRet: uintp(4096)}), "syscalls[0].action"},
		{"notify of write", rule(specs.LinuxSyscall{Action: specs.ActNotify, Names: []string{"write"}}), "syscalls[0].names"},
		{"a seventh argument", arg(specs.LinuxSeccompArg{Index: 6, Op: specs.OpEqualTo}), "syscalls[0].args[0].index"},
		{"an unknown operator", arg(specs.LinuxSeccompArg{Op: "SCMP_CMP_ISH"}), "syscalls[0].args[0].op"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Compile(tt.spec, "amd64")
			if !errors.Is(err, fault.Invalid) || !strings.Contains(fmt.Sprint(err), `"`+tt.says+`"`) {
				t.Errorf("Compile: %v; want fault.Invalid about %q", err, tt.says)
			}
		})
	}
	if _, err := Compile(&specs.LinuxSeccomp{DefaultAction: allow}, "z80"); !errors.Is(err, fault.Unsupported) {
		t.Errorf("an architecture without numbers: %v", err)
	}
	huge := &specs.LinuxSeccomp{DefaultAction: allow}
	for i := range uint64(3000) {
		huge.Syscalls = append(huge.Syscalls, specs.LinuxSyscall{Names: []string{"read"}, Action: errno, Args: []specs.LinuxSeccompArg{{Op: specs.OpGreaterThan, Value: i}}})
	}
	if _, err := Compile(huge, "amd64"); !errors.Is(err, fault.Invalid) {
		t.Errorf("a filter above the kernel's limit: %v", err)
	}
	bomb := rule(specs.LinuxSyscall{Names: slices.Repeat([]string{"read"}, 20000), Action: errno,
		Args: slices.Repeat([]specs.LinuxSeccompArg{{Op: specs.OpEqualTo}}, 20000)})
	if _, err := Compile(bomb, "amd64"); !errors.Is(err, fault.Invalid) {
		t.Errorf("a profile of 400 million rules: %v", err)
	}
}

func TestFlags(t *testing.T) {
	notify := []specs.LinuxSyscall{{Names: []string{"getpid"}, Action: specs.ActNotify}}
	for _, tt := range []struct {
		name  string
		flags []specs.LinuxSeccompFlag
		rules []specs.LinuxSyscall
		want  uint
	}{
		{"none given is runc's default", nil, nil, FlagSpecAllow},
		{"an empty list is none", []specs.LinuxSeccompFlag{}, nil, 0},
		{"all of them", []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC", specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagSpecAllow}, nil, FlagTSync | FlagLog | FlagSpecAllow},
		{"killable waiting without a listener is left out", []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, nil, 0},
		{"notify asks for a listener", []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagWaitKillableRecv}, notify, NewListener | FlagWaitKillableRecv},
		{"notify with tsync", []specs.LinuxSeccompFlag{"SECCOMP_FILTER_FLAG_TSYNC"}, notify, NewListener | FlagTSync | flagTSyncESRCH},
	} {
		f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Flags: tt.flags, Syscalls: tt.rules}, "amd64")
		if err != nil || f.Flags != tt.want {
			t.Errorf("%s: %#x, %v; want %#x", tt.name, f.Flags, err, tt.want)
		}
	}
}
