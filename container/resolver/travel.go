package resolver

import (
	"os"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
	"kiste/kernel/network"
)

// A traveller opens sockets in network namespaces: one thread, which goes there
// and comes back. A socket belongs for ever to where it was opened.
type traveller struct{ trips chan trip }

type trip struct {
	to   int // descriptor of a network namespace
	do   func() error
	done chan<- error
}

func newTraveller() *traveller {
	t := &traveller{make(chan trip)}
	go t.leave()
	return t
}

// in calls do in the network namespace to, on a thread that others wait for: do
// must not wait.
func (t *traveller) in(to int, do func() error) error {
	done := make(chan error, 1)
	t.trips <- trip{to, do, done}
	return <-done
}

func (t *traveller) close() { close(t.trips) }

// leave goes on trips. The thread of one that cannot come home ends, and another
// goes on.
func (t *traveller) leave() {
	_, _ = sys.OnOwnThread(func() (int, error) {
		home, err := network.Here()
		if err != nil {
			for trip := range t.trips {
				trip.done <- err
			}
			return 0, nil
		}
		defer home.Close()
		for trip := range t.trips {
			if !trip.make(home.FD) {
				go t.leave()
				break
			}
		}
		return 0, nil
	})
}

// make reports whether the thread is home again.
func (t trip) make(home int) bool {
	if err := sys.Setns(t.to, unix.CLONE_NEWNET); err != nil {
		t.done <- err
		return true
	}
	err := t.do()
	back := sys.Setns(home, unix.CLONE_NEWNET)
	t.done <- err
	return back == nil
}

// sockets are count sockets of the family and the type in the network namespace n:
// by a trip, or where threads cannot go, by n's own way.
func (t *traveller) sockets(n *network.Namespace, family, kind, count int) (all []*os.File, err error) {
	if n.Foreign() {
		return n.Sockets(family, kind, count)
	}
	err = t.in(n.FD, func() error {
		for range count {
			f, err := sys.NewSocket(family, kind)
			if err != nil {
				return err
			}
			all = append(all, f)
		}
		return nil
	})
	if err != nil {
		for _, f := range all {
			f.Close()
		}
		return nil, err
	}
	return all, nil
}
