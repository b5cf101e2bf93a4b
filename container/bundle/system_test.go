package bundle_test

import (
	"testing"

	"kiste/container/bundle"
)

// What Podman takes for a system is one.
func TestSystem(t *testing.T) {
	cmd := func(words ...string) bundle.ImageConfig { return bundle.ImageConfig{Cmd: words} }
	for _, tt := range []struct {
		name   string
		image  bundle.ImageConfig
		wishes bundle.Wishes
		want   bool
	}{
		{"an init", cmd("/sbin/init"), bundle.Wishes{}, true},
		{"systemd anywhere", cmd("/lib/systemd/systemd", "--log-level=debug"), bundle.Wishes{}, true},
		{"by a shell of a build", cmd("/bin/sh", "-c", "/usr/sbin/init"), bundle.Wishes{}, true},
		{"by the user", cmd("sh"), bundle.Wishes{Args: []string{"/sbin/init"}}, true},
		{"a shell", cmd("sh"), bundle.Wishes{}, false},
		{"a shell, always", cmd("sh"), bundle.Wishes{Systemd: "always"}, true},
		{"a shell, where it is an init", cmd("sh"), bundle.Wishes{Systemd: "true"}, false},
		{"an init, never", cmd("/sbin/init"), bundle.Wishes{Systemd: "false"}, false},
		{"an init behind another", cmd("/sbin/init"), bundle.Wishes{Init: true}, false},
		{"among the host's processes", cmd("/sbin/init"), bundle.Wishes{PID: bundle.Namespace{Kind: bundle.HostNS}}, false},
		{"not alone with its groups", cmd("/sbin/init"), bundle.Wishes{CgroupNS: bundle.Namespace{Kind: bundle.HostNS}}, false},
		{"another init", cmd("/init"), bundle.Wishes{}, false},
		{"nothing", bundle.ImageConfig{}, bundle.Wishes{}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.wishes.System(tt.image); got != tt.want {
				t.Errorf("System() = %v, want %v", got, tt.want)
			}
		})
	}
}
