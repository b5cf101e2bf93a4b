package sys

import (
	"os"
	"runtime"
)

// OnOwnThread calls do on a thread that ends afterwards, with the namespaces
// that do has taken it to. Go never ends the first thread of a process, and
// /proc/self shows that one's namespaces: where it is the one at hand, it waits
// until another has done it.
func OnOwnThread(do func() (int, error)) (int, error) {
	done := make(chan result)
	go onOwnThread(do, done)
	r := <-done
	return r.n, r.err
}

type result struct {
	n   int
	err error
}

func onOwnThread(do func() (int, error), done chan<- result) {
	runtime.LockOSThread() // and not unlocked: the thread ends with the goroutine
	if Thread() == os.Getpid() {
		other := make(chan result)
		go onOwnThread(do, other)
		r := <-other
		runtime.UnlockOSThread()
		done <- r
		return
	}
	n, err := do()
	done <- result{n, err}
}
