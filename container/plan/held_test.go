package plan

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/kernel/privilege"
)

// A host whose root lacks CAP_SYS_RESOURCE, and an engine that asks for it.
func TestWhatCannotBeGrantedIsLeftOut(t *testing.T) {
	all := []string{"CAP_CHOWN", "CAP_SYS_RESOURCE"}
	chown, err := privilege.ParseCaps(all[:1])
	if err != nil {
		t.Fatal(err)
	}
	p := &specs.Process{Args: []string{"true"}, Cwd: "/", Capabilities: &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}}
	made, err := CompileExec(p, Target{Root: "/"}, Options{}, Facts{Host: true, LastCap: 40, Held: chown.Has})
	if err != nil {
		t.Fatal(err)
	}
	if text := made.String(); !strings.Contains(text, "keep the capabilities cap_chown ") {
		t.Errorf("%s", text)
	}
	made, err = CompileExec(p, Target{Root: "/", UIDs: []IDMap{{0, 1000, 10}}}, Options{}, Facts{Host: true, LastCap: 40, Held: chown.Has})
	if err != nil {
		t.Fatal(err)
	}
	if text := made.String(); !strings.Contains(text, "cap_chown,cap_sys_resource") {
		t.Errorf("in a user namespace: %s", text)
	}
}
