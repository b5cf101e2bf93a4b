package privilege

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestAllows(t *testing.T) {
	const writeOnly = 1
	rule := func(action specs.LinuxSeccompAction, names ...string) specs.LinuxSyscall {
		return specs.LinuxSyscall{Action: action, Names: names}
	}
	readOnly := rule(specs.ActAllow, "openat")
	readOnly.Args = []specs.LinuxSeccompArg{{Index: 2, Value: 0, Op: specs.OpEqualTo}}
	for _, tt := range []struct {
		name  string
		rules []specs.LinuxSyscall
		want  bool
	}{
		{"named", []specs.LinuxSyscall{rule(specs.ActAllow, "openat")}, true},
		{"logged", []specs.LinuxSyscall{rule(specs.ActLog, "openat")}, true},
		{"not named", []specs.LinuxSyscall{rule(specs.ActAllow, "write")}, false},
		{"with other arguments", []specs.LinuxSyscall{readOnly}, false},
		{"asked for", []specs.LinuxSyscall{rule(specs.ActNotify, "openat")}, false},
		{"traced", []specs.LinuxSyscall{rule(specs.ActTrace, "openat")}, false},
	} {
		for _, goarch := range []string{"amd64", "arm64"} {
			f, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, ListenerPath: "/x", Syscalls: tt.rules}, goarch)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Allows(goarch, "openat", 3, 0, writeOnly); got != tt.want {
				t.Errorf("%s on %s: %v", tt.name, goarch, got)
			}
		}
	}
	if !(Filter{}).Allows("amd64", "openat") {
		t.Error("no filter forbids")
	}
	if (Filter{Instructions: []Instruction{{Op: opRet, K: retAllow}}}).Allows("amd64", "no_such_call") {
		t.Error("a call that does not exist is allowed")
	}
}
