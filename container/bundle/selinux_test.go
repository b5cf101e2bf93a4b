package bundle

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/kernel/privilege/selinux"
)

func TestSELinux(t *testing.T) {
	policy, err := selinux.ParseContexts([]byte("process = \"system_u:system_r:container_t:s0\"\ninit_process = \"system_u:system_r:container_init_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	const level = "s0:c1,c2"
	ids := []specs.LinuxIDMapping{{HostID: 1 << 30, Size: 1 << 16}}
	own := [2]string{"system_u:system_r:container_t:" + level, "system_u:object_r:container_file_t:" + level}
	none := [2]string{"", "system_u:object_r:container_file_t:s0:c1022,c1023"}
	for _, tt := range []struct {
		name    string
		wishes  Wishes
		joined  []string
		want    [2]string // of the process, of mounts
		refused string
	}{
		{"its own", Wishes{}, nil, own, ""},
		{"none", Wishes{Security: Security{Label: []string{"disable"}}}, nil, none, ""},
		{"none wins", Wishes{Security: Security{Label: []string{"type:x_t", "disable", "bogus"}}}, nil, none, ""},
		{"privileged", Wishes{Privileged: true, Security: Security{Label: []string{"type:x_t"}}}, nil, none, ""},
		{"the host's processes", Wishes{PID: Namespace{Kind: HostNS}}, nil, none, ""},
		{"the host's IPC", Wishes{IPC: Namespace{Kind: HostNS}}, nil, none, ""},
		{"all parts", Wishes{Security: Security{Label: []string{"user:u", "role:r", "type:t", "level:s0:c9", "filetype:f"}}}, nil, [2]string{"u:r:t:s0:c9", "u:object_r:f:s0:c9"}, ""},
		{"nested", Wishes{Security: Security{Label: []string{"nested"}}}, nil, own, ""},
		{"a whole system", Wishes{Systemd: SystemdAlways}, nil, [2]string{"system_u:system_r:container_init_t:" + level, own[1]}, ""},
		{"a whole system with a type", Wishes{Systemd: SystemdAlways, Security: Security{Label: []string{"type:x_t"}}}, nil, [2]string{"system_u:system_r:x_t:" + level, own[1]}, ""},
		{"another's", Wishes{}, []string{"u:r:t:s0:c7,c8"}, [2]string{"u:r:t:s0:c7,c8", "u:object_r:container_file_t:s0:c7,c8"}, ""},
		{"of one without", Wishes{}, []string{""}, none, ""},
		{"bogus", Wishes{Security: Security{Label: []string{"bogus"}}}, nil, [2]string{}, `bad label option "bogus"`},
		{"an unknown part", Wishes{Security: Security{Label: []string{"sort:x"}}}, nil, [2]string{}, `bad label option "sort"`},
		{"no type", Wishes{Security: Security{Label: []string{"type:"}}}, nil, [2]string{}, "no context"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.wishes.Args = []string{"true"}
			r, err := Compile(ImageConfig{}, tt.wishes, Facts{ID: strings.Repeat("a", 64), Root: true, UserNS: true, UIDs: ids, GIDs: ids, SELinux: &SELinux{Labels: policy, Level: level, Joined: tt.joined}})
			if tt.refused != "" {
				if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), tt.refused) {
					t.Fatalf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := [2]string{r.Spec.Process.SelinuxLabel, r.Spec.Linux.MountLabel}; got != tt.want || len(r.Warnings) > 0 {
				t.Errorf("got %q, want %q; warnings %q", got, tt.want, r.Warnings)
			}
			want := map[bool]string{true: "rootcontext"}[tt.name == "nested"]
			if got, has := r.Spec.Annotations[selinux.ContextType]; got != want || has != (want != "") {
				t.Errorf("the option is %q", got)
			}
		})
	}
}

// Without SELinux nothing is labelled and no option is looked at.
func TestNoSELinux(t *testing.T) {
	w := Wishes{Args: []string{"true"}, Security: Security{Label: []string{"disable", "type:x_t", "bogus"}}}
	ids := []specs.LinuxIDMapping{{HostID: 1 << 30, Size: 1 << 16}}
	r, err := Compile(ImageConfig{}, w, Facts{ID: strings.Repeat("a", 64), Root: true, UserNS: true, UIDs: ids, GIDs: ids})
	if err != nil || r.Spec.Process.SelinuxLabel+r.Spec.Linux.MountLabel+r.Spec.Annotations[selinux.ContextType] != "" || len(r.Warnings) != 2 {
		t.Errorf("got %+v, %v", r, err)
	}
}

// Without levels in the policy there are none in labels.
func TestSELinuxWithoutMLS(t *testing.T) {
	s := SELinux{Level: "s0:c1,c2"}
	s.Process, s.File = selinux.Context{User: "u", Role: "r", Type: "p"}, selinux.Context{User: "u", Role: "o", Type: "f"}
	if p, m, err := s.labels(nil, false); err != nil || p != "u:r:p" || m != "u:o:f" {
		t.Errorf("got %s, %s, %v", p, m, err)
	}
	if p, m, err := s.labels([]string{noLabels}, false); err != nil || p != "" || m != "u:o:f" {
		t.Errorf("got %q, %s, %v", p, m, err)
	}
}
