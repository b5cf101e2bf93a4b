package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What go test tells of real packages: one that passes, some that fail.
func TestReport(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":           "module m\n\ngo 1.24\n",
		"fine/a_test.go":   "package fine\nimport \"testing\"\nfunc TestFine(t *testing.T) { t.Log(\"nobody reads this\") }\nfunc TestTwice(t *testing.T) { t.Log(\"its first output\"); t.Log(\"NOT STEADY, failed above and passed when tested once more: part\") }\n",
		"parts/a_test.go":  "package parts\nimport \"testing\"\nfunc TestParts(t *testing.T) { for _, n := range []string{\"one\", \"t.wo\", \"three\"} { t.Run(n, func(t *testing.T) { if n != \"one\" { t.Run(\"deep\", func(t *testing.T) { t.Error(\"the word \"+n) }) } }) } }\nfunc TestAlone(t *testing.T) { t.Fatal(\"alone\") }\n",
		"main/a_test.go":   "package main\nimport (\"os\"; \"testing\")\nfunc TestMain(m *testing.M) { m.Run(); os.Exit(3) }\n",
		"crash/a_test.go":  "package crash\nimport \"testing\"\nfunc TestBefore(t *testing.T) { t.Error(\"before\") }\nfunc TestCrash(t *testing.T) { panic(1) }\nfunc TestAfter(t *testing.T) {}\n",
		"broken/a_test.go": "package broken\nfunc F() { undefined() }\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-json", "-p", "1", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	told, _ := cmd.Output() // it fails, as it should
	var out strings.Builder
	r := report{out: &out}
	if err := r.read(strings.NewReader(string(told))); err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, f := range r.failures {
		got[strings.Join(f.arguments(), " ")] = f.again
	}
	for want, again := range map[string]bool{
		"m/broken":                                 false,
		"m/main":                                   true,
		"-run ^TestBefore$ m/crash":                false,
		"-run ^TestCrash$ m/crash":                 false,
		"-run ^TestAlone$ m/parts":                 true,
		`-run ^TestParts$/^(t\.wo|three)$ m/parts`: true,
	} {
		if is, ok := got[want]; !ok || is != again {
			t.Errorf("to be run once more: %q is %v, %v; wanted %v", want, is, ok, again)
		}
		delete(got, want)
	}
	if len(got) > 0 {
		t.Errorf("and more: %v", got)
	}
	for _, want := range []string{"ok  \tm/fine", "FAIL\tm/main", "the word t.wo", "--- FAIL: TestAlone", "undefined: undefined", "its first output"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	if len(r.unsteady) != 1 || !strings.HasSuffix(r.unsteady[0], "once more: part") {
		t.Errorf("not steady: %q", r.unsteady)
	}
	for _, not := range []string{"nobody reads this", "=== RUN"} {
		if strings.Contains(out.String(), not) {
			t.Errorf("%q in:\n%s", not, out.String())
		}
	}
}
