package oci

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
	"kiste/kernel/privilege"
)

func featuresVerb() *verb {
	return &verb{
		name: "features", short: "print what config.json may ask for, as JSON",
		long: `The form is that of features.md of runtime-spec. What is listed is what this
program understands; whether the kernel can do it is another matter.`,
		run: func(s *session, _ []string) error {
			b, err := json.MarshalIndent(understood(), "", "    ")
			if err != nil {
				return err
			}
			return s.print(string(b) + "\n")
		},
	}
}

// understood is found by asking the rooms that do the work, so that it cannot
// be wrong about them.
func understood() *features.Features {
	yes := true
	return &features.Features{
		OCIVersionMin: "1.0.0",
		OCIVersionMax: specs.Version,
		Hooks:         strings.Fields("prestart createRuntime createContainer startContainer poststart poststop"),
		MountOptions:  mountOptions(),
		// what sets properties of systemd's units, and CRIU's configuration
		PotentiallyUnsafeConfigAnnotations: []string{"org.criu.config", "org.systemd.property."},
		Linux: &features.Linux{
			Namespaces:      namespaces(),
			Capabilities:    capabilities(),
			Cgroup:          &features.Cgroup{V1: &yes, V2: &yes, Systemd: &yes, SystemdUser: &yes, Rdma: &yes},
			Seccomp:         seccomp(),
			Apparmor:        &features.Apparmor{Enabled: plans(func(s *specs.Spec) { s.Process.ApparmorProfile = "p" })},
			Selinux:         &features.Selinux{Enabled: plans(func(s *specs.Spec) { s.Process.SelinuxLabel = "l" })},
			IntelRdt:        intelRDT(),
			MemoryPolicy:    memoryPolicy(),
			MountExtensions: &features.MountExtensions{IDMap: &features.IDMap{Enabled: &yes}},
			NetDevices: &features.NetDevices{Enabled: plans(func(s *specs.Spec) {
				s.Linux.NetDevices = map[string]specs.LinuxNetDevice{"eth7": {}}
			})},
		},
	}
}

// plans reports whether a container with what change adds would be refused as
// not supported, on a host that can do everything.
func plans(change func(*specs.Spec)) *bool {
	s := example(false)
	change(s)
	yes := func() bool { return true }
	_, err := plan.Compile(s, nil, plan.Options{}, plan.Facts{Host: true, LastCap: privilege.LastCap(), AppArmor: yes, SELinux: yes, ClassTasks: []string{"tasks"},
		Kind: func(string) string { return "dir" }})
	known := !errors.Is(err, fault.Unsupported)
	return &known
}

func intelRDT() *features.IntelRdt {
	given := func(rdt specs.LinuxIntelRdt) *bool { return plans(func(s *specs.Spec) { s.Linux.IntelRdt = &rdt }) }
	return &features.IntelRdt{
		Enabled:    given(specs.LinuxIntelRdt{ClosID: "c"}),
		Schemata:   given(specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}}),
		Monitoring: given(specs.LinuxIntelRdt{EnableMonitoring: true}),
	}
}

const (
	memoryModes = "MPOL_DEFAULT MPOL_PREFERRED MPOL_BIND MPOL_INTERLEAVE MPOL_LOCAL MPOL_PREFERRED_MANY MPOL_WEIGHTED_INTERLEAVE"
	memoryFlags = "MPOL_F_STATIC_NODES MPOL_F_RELATIVE_NODES MPOL_F_NUMA_BALANCING"
)

func memoryPolicy() *features.MemoryPolicy {
	given := func(p specs.LinuxMemoryPolicy) bool {
		return *plans(func(s *specs.Spec) { s.Linux.MemoryPolicy = &p })
	}
	return &features.MemoryPolicy{
		Modes: known(memoryModes, func(m specs.MemoryPolicyModeType) bool { return given(specs.LinuxMemoryPolicy{Mode: m}) }),
		Flags: known(memoryFlags, func(f specs.MemoryPolicyFlagType) bool {
			return given(specs.LinuxMemoryPolicy{Mode: "MPOL_BIND", Nodes: "0", Flags: []specs.MemoryPolicyFlagType{f}})
		}),
	}
}

// known keeps the words, which stand in one string, that ask says yes to.
func known[T ~string](words string, ask func(T) bool) []string {
	var yes []string
	for word := range strings.FieldsSeq(words) {
		if ask(T(word)) {
			yes = append(yes, word)
		}
	}
	slices.Sort(yes)
	return yes
}

// mountWords are those of runtime-spec's config.md and of mount(8).
const mountWords = `acl async atime bind defaults dev diratime dirsync exec idmap iversion lazytime loud mand noacl noatime nodev
nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private ratime rbind rdev rdiratime
relatime remount rexec ridmap rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime
rro rrw rshared rslave rstrictatime rsuid rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable`

// mountOptions are the words that are not left to a file system. That tmpcopyup
// is none of mount(8) package plan knows.
func mountOptions() []string {
	return known(mountWords, func(word string) bool {
		if word == "tmpcopyup" {
			return true
		}
		p, err := chroot.ParseOptions([]string{word})
		return err == nil && len(p.Data) == 0
	})
}

func namespaces() []string {
	var all []string
	for _, k := range namespace.Kinds() {
		all = append(all, k.OCI)
	}
	slices.Sort(all)
	return all
}

// capabilities are those with a name, whether or not this kernel has them.
func capabilities() []string {
	var all []string
	for n := range 64 {
		if c := privilege.Caps(1) << n; len(c.Names()) == 1 && strings.HasPrefix(c.Names()[0], "CAP_") {
			all = append(all, c.Names()...)
		}
	}
	return all
}

const (
	seccompActions   = "SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS SCMP_ACT_KILL_THREAD SCMP_ACT_TRAP SCMP_ACT_ERRNO SCMP_ACT_TRACE SCMP_ACT_ALLOW SCMP_ACT_LOG SCMP_ACT_NOTIFY"
	seccompOperators = "SCMP_CMP_NE SCMP_CMP_LT SCMP_CMP_LE SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_MASKED_EQ"
	seccompArchs     = `SCMP_ARCH_AARCH64 SCMP_ARCH_ARM SCMP_ARCH_LOONGARCH64 SCMP_ARCH_M68K SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 SCMP_ARCH_MIPS64N32
SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PARISC SCMP_ARCH_PARISC64 SCMP_ARCH_PPC SCMP_ARCH_PPC64 SCMP_ARCH_PPC64LE
SCMP_ARCH_RISCV64 SCMP_ARCH_S390 SCMP_ARCH_S390X SCMP_ARCH_SH SCMP_ARCH_SHEB SCMP_ARCH_X32 SCMP_ARCH_X86 SCMP_ARCH_X86_64`
	seccompFlags = "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_LOG SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
)

func seccomp() *features.Seccomp {
	yes := true
	f := &features.Seccomp{
		Enabled: &yes,
		Actions: known(seccompActions, func(a specs.LinuxSeccompAction) bool {
			return compiles(specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"chdir"}, Action: a}}})
		}),
		Operators: known(seccompOperators, func(o specs.LinuxSeccompOperator) bool {
			args := []specs.LinuxSeccompArg{{Op: o}}
			return compiles(specs.LinuxSeccomp{Syscalls: []specs.LinuxSyscall{{Names: []string{"chdir"}, Action: specs.ActErrno, Args: args}}})
		}),
		Archs: known(seccompArchs, func(a specs.Arch) bool { return compiles(specs.LinuxSeccomp{Architectures: []specs.Arch{a}}) }),
		KnownFlags: known(seccompFlags, func(f specs.LinuxSeccompFlag) bool {
			return compiles(specs.LinuxSeccomp{Flags: []specs.LinuxSeccompFlag{f}})
		}),
	}
	f.SupportedFlags = f.KnownFlags
	return f
}

func compiles(s specs.LinuxSeccomp) bool {
	s.DefaultAction = specs.ActAllow
	_, err := privilege.Compile(&s, "amd64")
	return err == nil
}
