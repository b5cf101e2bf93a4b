package privilege

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

func TestAdjustIsDockers(t *testing.T) {
	const chown, kill, admin, raw Caps = 1 << 0, 1 << 5, 1 << 12, 1 << 13
	list := func(s string) []string { return strings.Fields(s) }
	for _, tt := range []struct {
		name, add, drop string
		want            Caps
	}{
		{"nothing asked", "", "", DefaultCaps},
		{"add", "NET_ADMIN", "", DefaultCaps | admin},
		{"either case, with and without CAP_", "cap_net_admin", "Net_Raw", DefaultCaps&^raw | admin},
		{"drop", "", "CHOWN KILL", DefaultCaps &^ chown &^ kill},
		{"drop all", "", "ALL", 0},
		{"drop all and add", "NET_ADMIN", "all", admin},
		{"add all", "ALL", "", AllCaps()},
		{"add all but", "ALL", "KILL", AllCaps() &^ kill},
		{"add all wins over drop all", "ALL", "ALL", AllCaps()},
		{"add wins over drop", "KILL", "KILL", DefaultCaps},
	} {
		got, err := Adjust(DefaultCaps, list(tt.add), list(tt.drop))
		if err != nil || got != tt.want {
			t.Errorf("%s: %v, %v; want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestUnknownCapabilitiesAreNamedAsDockerDoes(t *testing.T) {
	for name, says := range map[string]string{
		"NET_ADMINN": `unknown capability: "CAP_NET_ADMINN"`,
		"":           `unknown capability: "CAP_"`,
		"CAP_63":     `capability not supported by your kernel or not available in the current environment: "CAP_63"`,
	} {
		_, err := Adjust(DefaultCaps, []string{name}, nil)
		if !errors.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("Adjust(%q): %v; want %s", name, err, says)
		}
	}
}

func TestDefaultCapsAreDockers(t *testing.T) {
	want := "cap_chown,cap_dac_override,cap_fowner,cap_fsetid,cap_kill,cap_setgid,cap_setuid,cap_setpcap,cap_net_bind_service,cap_net_raw,cap_sys_chroot,cap_mknod,cap_audit_write,cap_setfcap"
	if got := DefaultCaps.String(); got != want {
		t.Errorf("DefaultCaps = %s; want %s", got, want)
	}
}

func TestParseRlimit(t *testing.T) {
	for _, tt := range []struct {
		name, in, want string // empty: refused
	}{
		{"one value is both", "nofile=1024", "nofile=1024:1024"},
		{"two values", "nofile=1024:2048", "nofile=1024:2048"},
		{"no limit as -1", "core=-1", "core=-1:-1"},
		{"no limit as a word", "core=0:unlimited", "core=0:-1"},
		{"zero", "core=0", "core=0:0"},
		{"soft above hard", "nofile=2048:1024", ""},
		{"soft without limit above hard", "nofile=-1:1024", ""},
		{"no value", "nofile", ""},
		{"an empty value", "nofile=", ""},
		{"an empty hard value", "nofile=1:", ""},
		{"three values", "nofile=1:2:3", ""},
		{"an unknown name", "files=1", ""},
		{"OCI's name", "RLIMIT_NOFILE=1", ""},
		{"a negative number", "nofile=-2", ""},
		{"too large", "nofile=99999999999999999999", ""},
	} {
		got, err := ParseRlimit(tt.in)
		switch {
		case tt.want == "" && !errors.Is(err, fault.Invalid):
			t.Errorf("%s: ParseRlimit(%q) = %v, %v; want it refused", tt.name, tt.in, got, err)
		case tt.want != "" && (err != nil || got.String() != tt.want):
			t.Errorf("%s: ParseRlimit(%q) = %v, %v; want %s", tt.name, tt.in, got, err, tt.want)
		}
	}
	if n, err := RlimitNumber("RLIMIT_RTTIME"); err != nil || n != 15 {
		t.Errorf("RlimitNumber(RLIMIT_RTTIME) = %d, %v", n, err)
	}
}

func read(t *testing.T, text string, caps Caps) (*specs.LinuxSeccomp, error) {
	t.Helper()
	return ReadProfile(strings.NewReader(text), caps, "amd64")
}

func TestReadProfileDecidesDockersConditions(t *testing.T) {
	rule := func(conditions string) string {
		return `{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"` + conditions + `}]}`
	}
	for _, tt := range []struct {
		name, conditions string
		kept             bool
	}{
		{"none", ``, true},
		{"a capability held", `,"includes":{"caps":["CAP_CHOWN"]}`, true},
		{"two of which one is held", `,"includes":{"caps":["CAP_CHOWN","CAP_SYS_ADMIN"]}`, false},
		{"an unknown capability", `,"includes":{"caps":["CAP_MAGIC"]}`, false},
		{"excluded by a capability held", `,"excludes":{"caps":["CAP_SYS_ADMIN","CAP_CHOWN"]}`, false},
		{"excluded by one not held", `,"excludes":{"caps":["CAP_SYS_ADMIN"]}`, true},
		{"for this architecture", `,"includes":{"arches":["amd64","x32"]}`, true},
		{"for another", `,"includes":{"arches":["arm64"]}`, false},
		{"not for this one", `,"excludes":{"arches":["amd64"]}`, false},
		{"for old kernels too", `,"includes":{"minKernel":"4.8"}`, true},
		{"for a kernel to come", `,"includes":{"minKernel":"200.1"}`, false},
		{"but not for new kernels", `,"excludes":{"minKernel":"4.8"}`, false},
		{"null", `,"includes":null,"excludes":null,"args":null`, true},
	} {
		p, err := read(t, rule(tt.conditions), DefaultCaps)
		if err != nil || (len(p.Syscalls) == 1) != tt.kept {
			t.Errorf("%s: %+v, %v; want it kept: %v", tt.name, p, err, tt.kept)
		}
	}
}

func TestReadProfileOfOtherForms(t *testing.T) {
	p, err := read(t, `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_ERRNO"}]}`, 0)
	if err != nil || !slices.Equal(p.Syscalls[0].Names, []string{"read"}) {
		t.Errorf("Docker's old name: %+v, %v", p, err)
	}
	plain := specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86}, ListenerPath: "/s",
		Flags: []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog}, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActNotify}}}
	text, _ := json.Marshal(plain)
	p, err = read(t, string(text), 0)
	again, _ := json.Marshal(p)
	if err != nil || string(again) != string(text) {
		t.Errorf("an OCI profile came back as %s, %v; want %s", again, err, text)
	}
	if p, err := read(t, `{}`, 0); p != nil || err != nil {
		t.Errorf("a profile that says nothing: %+v, %v; want none", p, err)
	}
}

func TestReadProfileRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON":            `seccomp`,
		"both names":         `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["b"],"action":"SCMP_ACT_ERRNO"}]}`,
		"both architectures": `{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}`,
		"a bad kernel":       `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"new"}}]}`,
		"kernel 0.0":         `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["a"],"action":"SCMP_ACT_ERRNO","includes":{"minKernel":"0.0"}}]}`,
		"too much":           strings.Repeat(" ", MaxProfile+1),
	} {
		if _, err := read(t, text, 0); !errors.Is(err, fault.Invalid) {
			t.Errorf("%s: %v; want fault.Invalid", name, err)
		}
	}
}

func TestRulesetForOlderKernelsKeepsWhatTheyKnow(t *testing.T) {
	r := FilesOnly([]string{"/usr"}, []string{"/tmp"})
	r.Ports, r.Scopes = PortsBind|PortsConnect, ScopeSignals
	r.Net = []PortRule{{80, PortsConnect}}
	for _, tt := range []struct{ abi, attr, paths, ports int }{
		{0, 8, 0, 0}, {1, 8, 2, 0}, {3, 8, 2, 0}, {4, 16, 2, 1}, {5, 16, 2, 1}, {6, 24, 2, 1}, {99, 24, 2, 1},
	} {
		got := r.For(tt.abi)
		if len(got.Attr()) != tt.attr || len(got.Paths) != tt.paths || len(got.Net) != tt.ports || got.Empty() != (tt.abi == 0) {
			t.Errorf("version %d: %+v, %d bytes; want %+v", tt.abi, got, len(got.Attr()), tt)
		}
	}
	if n := len((PathRule{"/", FilesAll}).Attr(3, true)); n != 12 {
		t.Errorf("landlock_path_beneath_attr is packed: %d bytes, want 12", n)
	}
}

func TestSecurebits(t *testing.T) {
	got, err := ParseSecurebits("noroot,noroot-locked,no_cap_ambient_raise")
	if err != nil || got != 0x43 || SecurebitsText(got) != "noroot,noroot_locked,no_cap_ambient_raise" {
		t.Errorf("ParseSecurebits = %#x, %v", got, err)
	}
	if _, err := ParseSecurebits("noboot"); !errors.Is(err, fault.Invalid) {
		t.Errorf("an unknown bit: %v", err)
	}
}

// The words for processes of several kinds, from their /proc files.
func TestWords(t *testing.T) {
	r := Report{Own: []string{"user"}, UIDMap: []IDRange{{0, 100000, 65536}}, OOM: -1000}
	err := r.readStatus("Uid:\t100033\t100033\t100033\t100033\nCapEff:\t0000000000000400\nCapPrm:\t0000000000000401\nCapBnd:\t0000000000000401\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, s := range r.Words() {
		all = append(all, s.Lines...)
	}
	for _, want := range []string{
		"is uid 33 inside its user namespace: that is 100033 outside",
		"may bind ports below 1024 (CAP_NET_BIND_SERVICE)",
		"may take up at any time: cap_chown",
		"cannot gain privileges by setuid programs (no_new_privs)",
		"its system calls are filtered (seccomp, 1 filter)",
		"is never killed when memory runs out (oom_score_adj -1000)",
	} {
		if !slices.Contains(all, want) {
			t.Errorf("the words lack %q: %q", want, all)
		}
	}
}

// Whatever a profile says, reading and compiling end well or with an error,
// and every filter ends.
func FuzzProfile(f *testing.F) {
	f.Add(defaultJSON, uint64(DefaultCaps))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"read","action":"SCMP_ACT_ERRNO","errnoRet":5,"args":[{"index":1,"op":"SCMP_CMP_LE","value":7}]}]}`), uint64(0))
	f.Fuzz(func(t *testing.T, text []byte, set uint64) {
		p, err := ReadProfile(bytes.NewReader(text), Caps(set), "amd64")
		if err != nil || p == nil {
			return
		}
		filter, err := Compile(p, "amd64")
		if err != nil {
			return
		}
		naive := newModel(p, "amd64")
		for _, nr := range []uint32{0, 1, 41, 135, 435, 5000, x32Bit | 1, noCall} {
			for _, audit := range []uint32{0xc000003e, 0x40000003, 7} {
				d := seccompData{nr: nr, arch: audit, args: [6]uint64{set, 7, 1 << 32}}
				got, _, err := run(filter.Instructions, d, false)
				if want := naive.says(d); err != nil || got != want {
					t.Errorf("%+v: %#x, %v; the profile says %#x", d, got, err, want)
				}
			}
		}
	})
}

func FuzzParseRlimit(f *testing.F) {
	f.Add("nofile=1024:2048")
	f.Add("core=-1")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseRlimit(s)
		if err != nil {
			return
		}
		if again, err := ParseRlimit(l.String()); err != nil || again != l {
			t.Errorf("%q -> %+v -> %q -> %+v, %v", s, l, l, again, err)
		}
	})
}

func FuzzParseCap(f *testing.F) {
	f.Add("CAP_NET_ADMIN")
	f.Add("cap_41")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCap(s)
		if err != nil || strings.EqualFold(s, "all") {
			return
		}
		if again, err := ParseCaps(c.Names()); err != nil || again != c || len(c.Names()) != 1 {
			t.Errorf("%q -> %v -> %v, %v", s, c, again, err)
		}
	})
}

func FuzzStatus(f *testing.F) {
	f.Add("Uid:\t0\t0\t0\t0\nCapEff:\t1\n", "Limit\nMax cpu time              unlimited            unlimited            seconds\n")
	f.Fuzz(func(t *testing.T, status, limits string) {
		var r Report
		r.readStatus(status)
		r.Limits = readLimits(limits)
		r.Words()
	})
}
