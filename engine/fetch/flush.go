package fetch

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"

	"kiste/internal/sys"
	"kiste/store"
)

// A flush brings to the disk what a pull writes, while it writes more, so that
// the last syncfs(2), for which the image's name waits, has little left to do.
//
// It is opened before anything is written: syncfs(2) tells each descriptor of
// the errors of writing since it was opened, and of none twice.
type flush struct {
	store *os.File
	wrote atomic.Int64
	wake  chan struct{}
	done  chan struct{}

	mu  sync.Mutex
	err error // of all syncs
}

// flushEach is how many compressed bytes are worth a sync: together with what
// they unpack to, they keep a disk busy for a part of a second.
const flushEach = 32 << 20

func startFlush(s store.Store) (*flush, error) {
	f, err := os.Open(s.Lib)
	if err != nil {
		return nil, err
	}
	fl := &flush{store: f, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		for range fl.wake {
			fl.sync()
		}
		close(fl.done)
	}()
	return fl, nil
}

// sync waits until all that was written before is on the disk. An error stays:
// the kernel tells it once, and what it met is not known.
func (fl *flush) sync() error {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	fl.err = errors.Join(fl.err, sys.Syncfs(int(fl.store.Fd())))
	return fl.err
}

// Write counts what is written elsewhere.
func (fl *flush) Write(p []byte) (int, error) {
	n := int64(len(p))
	if after := fl.wrote.Add(n); after/flushEach > (after-n)/flushEach {
		select {
		case fl.wake <- struct{}{}:
		default: // one waits already
		}
	}
	return len(p), nil
}

// close ends it. Nothing may be written through fl any more.
func (fl *flush) close() {
	close(fl.wake)
	<-fl.done
	fl.store.Close()
}
