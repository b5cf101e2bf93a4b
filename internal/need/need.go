// Package need lets a test say what it needs of the host, loudly.
//
//	takes    powers of package host, programs
//	gives    a skip that names the need, or a failure where $KISTE_REQUIRE demands it;
//	         a failure where a test leaves something behind; servers to ask
//	touches  /proc, /sys and the dirs given to Clean, reading
//	state    a lock while a test is under Clean
package need

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"kiste/host"
)

// Power skips the test where the host lacks one of powers, and fails it where
// $KISTE_REQUIRE, a list of names with commas or "all", says that the host
// must have it.
func Power(t testing.TB, powers ...host.Power) {
	t.Helper()
	for _, p := range powers {
		if !p.Have() {
			Missing(t, p.Name, p.Remedy)
		}
	}
}

// Program skips the test where one of names is not on $PATH, and fails it
// where $KISTE_REQUIRE says "programs" or "all".
func Program(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Missing(t, "programs", name+" is not installed: test/deps installs it")
		}
	}
}

// Main runs the tests of a package on what build makes in a directory that
// everybody can enter. Where $KISTE_BUILT names a kiste, as in the virtual
// machine, where there is no Go, it is that one's directory. To be called by
// TestMain; it panics where nothing could be built.
func Main(m *testing.M, build func(dir string) error) {
	if kiste := os.Getenv(built); kiste != "" {
		if err := build(filepath.Dir(kiste)); err != nil {
			panic(err)
		}
		m.Run()
		return
	}
	dir, err := os.MkdirTemp("", "kiste-built")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), build(dir)); err != nil {
		panic(err)
	}
	m.Run()
}

const built = "KISTE_BUILT"

// Build builds the programs as users get them into dir, as version "test",
// unless $KISTE_BUILT says that they are there. The test, or bench, runs inside
// of the repository.
func Build(dir string) error {
	if os.Getenv(built) == filepath.Join(dir, "kiste") {
		return nil
	}
	top, err := top()
	if err != nil {
		return err
	}
	build := exec.Command("make", "-s", "-C", top, "build", "VERSION=test", "BIN="+dir)
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build kiste: %w\n%s", err, out)
	}
	return nil
}

// top is the directory of the repository.
func top() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "house_test.go")); err == nil {
			return dir, nil
		}
	}
	return "", errors.Join(err, errors.New("not inside of the repository"))
}

// Missing skips the test that lacks name, and fails it where $KISTE_REQUIRE
// lists that name.
func Missing(t testing.TB, name, remedy string) {
	t.Helper()
	required := strings.Split(os.Getenv("KISTE_REQUIRE"), ",")
	if slices.Contains(required, name) || slices.Contains(required, "all") {
		t.Fatalf("NEEDS %s, which $KISTE_REQUIRE demands here; %s", name, remedy)
	}
	t.Skipf("NEEDS %s; %s", name, remedy)
}
