package plan_test

import (
	"errors"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/kernel/privilege"
)

// confined compiles one more process under a profile of AppArmor's.
func confined(t *testing.T, f privilege.Filter, has func(string) bool) (*plan.Plan, error) {
	t.Helper()
	p := &specs.Process{Args: []string{"/bin/sh"}, Cwd: "/", ApparmorProfile: "box"}
	return plan.CompileExec(p, plan.Target{Namespaces: []string{"mnt", "pid"}}, plan.Options{Filter: f},
		plan.Facts{Host: true, LastCap: 40, AppArmor: yes, Profile: has, Limit: func(int) (soft, hard uint64) { return 100, 200 }})
}

// The stub asks for the profile, where the filter lets it.
func TestPlanOfAProfile(t *testing.T) {
	p, err := confined(t, privilege.Filter{}, func(name string) bool { return name == "box" })
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "confined.calls", p.Calls())
	checkPlan(t, p)
	for _, forbidden := range []string{"prctl", "openat", "write", "close"} {
		filter, err := privilege.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
			Syscalls: []specs.LinuxSyscall{{Names: []string{forbidden}, Action: specs.ActErrno}}}, runtime.GOARCH)
		if err != nil {
			t.Fatal(err)
		}
		p, err := confined(t, filter, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(p.Calls(), `write(<AppArmor's exec>, "exec box"`) {
			t.Errorf("without %s nobody asks for the profile before the stub:\n%s", forbidden, p.Calls())
		}
	}
}

func TestProfileThatIsMissing(t *testing.T) {
	_, err := confined(t, privilege.Filter{}, func(string) bool { return false })
	if !errors.Is(err, fault.NotFound) || !strings.Contains(err.Error(), "box") {
		t.Errorf("got %v", err)
	}
}

func TestUnlabelled(t *testing.T) {
	for said, want := range map[uint32]bool{2: false, 2048 + 2: true} {
		if errno, label := plan.Unlabelled(syscall.Errno(said)); errno != 2 || label != want {
			t.Errorf("%d: %d, %v", said, errno, label)
		}
	}
}
