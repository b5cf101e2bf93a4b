package lifecycle_test

import (
	"errors"
	"sync"
	"syscall"
	"testing"

	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/need"
)

// many calls do in so many goroutines at once, and gives what they said.
func many(n int, do func() error) []error {
	errs := make([]error, n)
	var start, end sync.WaitGroup
	start.Add(1)
	for i := range errs {
		end.Go(func() {
			start.Wait()
			errs[i] = do()
		})
	}
	start.Done()
	end.Wait()
	return errs
}

// winners counts those without an error; the others must have one of kind.
func winners(t *testing.T, errs []error, kind fault.Kind) (n int) {
	t.Helper()
	for _, err := range errs {
		switch {
		case err == nil:
			n++
		case !errors.Is(err, kind):
			t.Errorf("%v, want it %v", err, kind)
		}
	}
	return n
}

// Of many who create a container with one id, or start it, one does; of many who
// delete it, all have their way.
func TestManyAtOnce(t *testing.T) {
	f := newFixture(t, "sleep", "100")
	o := f.options(t)
	need.Clean(t)
	for range 5 {
		id := name("many")
		if n := winners(t, many(8, func() error { _, err := f.root.Create(id, o); return err }), fault.Exists); n != 1 {
			t.Errorf("%d have created it", n)
		}
		c, err := f.root.Load(id)
		if err != nil {
			t.Fatal(err)
		}
		if n := winners(t, many(8, c.Start), fault.Conflict); n != 1 {
			t.Errorf("%d have started it", n)
		}
		if n := winners(t, many(4, func() error { return execTrue(t, c) }), ""); n != 4 {
			t.Errorf("%d of 4 have run something in it", n)
		}
		ended := make(chan struct{})
		go func() { syscall.Wait4(c.PID(), nil, 0, nil); close(ended) }()
		if n := winners(t, many(8, func() error { return f.root.Delete(id, true) }), ""); n != 8 {
			t.Errorf("%d of 8 have deleted it", n)
		}
		<-ended
	}
}

// Containers with different ids do not wait for each other, and leave nothing.
func TestManyContainers(t *testing.T) {
	f := newFixture(t, "true")
	o := f.options(t)
	need.Clean(t)
	var mu sync.Mutex
	n := 0
	errs := many(24, func() error {
		mu.Lock()
		n++
		id := name("many") + "-" + string(rune('a'+n))
		mu.Unlock()
		c, err := f.root.Create(id, o)
		if err != nil {
			return err
		}
		return errors.Join(c.Start(), wait(c), c.Delete(false))
	})
	winners(t, errs, "")
	if all, bad, err := f.root.List(); len(all)+len(bad) > 0 || err != nil {
		t.Errorf("%d are left, %v, %v", len(all), bad, err)
	}
}

func wait(c *lifecycle.Container) error {
	_, err := syscall.Wait4(c.PID(), nil, 0, nil)
	return err
}
