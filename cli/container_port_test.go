package cli

import (
	"errors"
	"testing"

	"kiste/fault"
)

func TestPrivatePort(t *testing.T) {
	for word, want := range map[string]string{"80": "80/tcp", "80/": "80/tcp", "53/udp": "53/udp", "65535/sctp": "65535/sctp"} {
		if got, err := privatePort(word); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", word, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "-1", "65536", "80/icmp", "80/tcp/x", "/tcp"} {
		if got, err := privatePort(bad); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %q, %v", bad, got, err)
		}
	}
}
