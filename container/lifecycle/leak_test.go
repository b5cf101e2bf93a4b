package lifecycle_test

import (
	"os"
	"testing"

	"kiste/container/lifecycle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/internal/need"
)

// Whatever step of a creation or an exec fails, nothing stays, and what fails
// is told.
func TestNothingStaysWhateverFails(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	o := f.options(t)
	need.Clean(t, f.bundle)
	base := f.running(t, name("leak-base"))
	p, err := base.Process()
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"create", "exec"} {
		steps, calls := 1, 1
		attempt := func(failAt, failCall int) error {
			root := f.root
			root.Prepare = func(p *plan.Plan, o *process.Options) {
				steps, calls = len(p.Steps), 0
				for _, s := range p.Steps {
					calls += len(s.Calls)
				}
				o.FailAt, o.FailCall = failAt, failCall
			}
			if verb == "create" {
				c, err := root.Create(name("leak"), o)
				if err == nil {
					end(t, c)
				}
				return err
			}
			c, err := root.Load(name("leak-base"))
			if err != nil {
				t.Fatal(err)
			}
			proc, err := c.Exec(lifecycle.ExecOptions{Process: p, Files: o.Files})
			if err == nil {
				proc.Signal(9)
				proc.Wait()
				proc.Remove()
			}
			return err
		}
		if err := attempt(0, 0); err != nil {
			t.Fatal(err)
		}
		every := 1
		if testing.Short() {
			every = 7
		}
		for at := 1; at <= steps; at += every {
			_ = attempt(at, 0) // the child's steps do not fail so
			f.nothing(t, verb, at, 0)
		}
		for at := 1; at <= calls; at += every {
			_ = attempt(0, at) // a call that may fail changes nothing
			f.nothing(t, verb, 0, at)
		}
	}
}

// end removes a container whose process is this one's child.
func end(t *testing.T, c *lifecycle.Container) {
	t.Helper()
	if err := c.Kill(9, false); err != nil {
		t.Error(err)
	}
	reap(t, c)
	if err := c.Delete(false); err != nil {
		t.Error(err)
	}
}

func (f *fixture) nothing(t *testing.T, verb string, step, call int) {
	t.Helper()
	entries, err := os.ReadDir(f.root.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%s, step %d, call %d: %d containers, want 1 (%v)", verb, step, call, len(entries), err)
	}
	for _, group := range groupsOf(name("leak")) {
		t.Errorf("%s, step %d, call %d: %s is left", verb, step, call, group)
	}
}
