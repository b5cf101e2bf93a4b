package script

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"kiste/internal/need"
)

// leftOut are the options of Docker's verbs that Kiste does not have, and why. A
// verb may be several, separated by spaces; one of two words has a hyphen.
func leftOut() []struct{ verbs, options, why string } {
	return []struct{ verbs, options, why string }{
		{"run create", "--cpu-count --cpu-percent --io-maxbandwidth --io-maxiops --isolation", "of Windows"},
		{"run create", "--disable-content-trust", "taken away in Docker 29"},
		{"run create", "--kernel-memory", "deprecated in Docker, and ignored by the kernel since 5.16"},
		{"run create", "--gpus", "asks a driver of the vendor's; --device gives devices"},
		{"run create", "--storage-opt", "asks the storage driver, of which ours takes no options"},
		{"run create", "--use-api-socket", "hands Docker's socket in, which is a way to root; there is none here"},
		{"run create rm network-connect", "--link", "Docker's legacy; containers of one network know each other's names"},
		{"create", "--attach", "start says to what it attaches"},
		{"network-create", "--ingress", "of Swarm"},
		{"network-inspect", "--verbose", "of Swarm"},
		{"start", "--checkpoint --checkpoint-dir", "experimental in Docker; kiste-runtime saves and restores"},
	}
}

// optionPattern finds an option at the beginning of a line of help.
var optionPattern = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z0-9-]+(?:, --[a-z0-9-]+)*)`)

// optionsOf are the long names of the options that a program's help shows.
func optionsOf(t *testing.T, program string, args ...string) (all []string) {
	t.Helper()
	text, err := exec.Command(program, args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", program, args, err)
	}
	for _, m := range optionPattern.FindAllStringSubmatch(string(text), -1) {
		all = append(all, strings.Split(m[1], ", ")...)
	}
	return all
}

// Every option of the installed Docker's verbs is one of ours, but for those
// that are left out with a reason; and none of these is there after all.
func TestDockersOptions(t *testing.T) {
	need.Program(t, "docker")
	kiste := filepath.Join(bin, "kiste")
	for _, verb := range strings.Fields("run create start stop restart kill pause unpause attach exec logs top wait port rename update stats ps inspect rm commit cp diff export events " +
		"network-create network-connect network-disconnect network-ls network-rm network-prune network-inspect") {
		words := strings.Split(verb, "-")
		ours, without := optionsOf(t, kiste, append([]string{"help"}, words...)...), []string{"--help"}
		for _, row := range leftOut() {
			if slices.Contains(strings.Fields(row.verbs), verb) {
				without = append(without, strings.Fields(row.options)...)
			}
		}
		for _, option := range optionsOf(t, "docker", append(words, "--help")...) {
			if !slices.Contains(ours, option) && !slices.Contains(without, option) {
				t.Errorf("docker %s has %s, and kiste %s has not", verb, option, verb)
			}
		}
		for _, option := range without[1:] {
			if slices.Contains(ours, option) {
				t.Errorf("kiste %s has %s, which is said to be left out", verb, option)
			}
		}
	}
}
