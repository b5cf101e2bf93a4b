package heavy

import (
	"slices"
	"testing"

	"kiste/cli"
	"kiste/engine/quadlet"
)

// Every option that a quadlet key becomes is one of kiste run, or of its networks.
func TestQuadletOptionsAreThere(t *testing.T) {
	have := append(cli.RunOptionNames(), "--expose", "--ip", "--ip6", "--network-alias", "--publish")
	for _, name := range quadlet.RunOptions() {
		if !slices.Contains(have, name) {
			t.Errorf("kiste run has no option %s", name)
		}
	}
}
