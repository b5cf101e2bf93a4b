package layer

import "io"

// An Ahead is a reader that reads ahead of its user.
type Ahead struct {
	full chan piece
	free chan []byte
	stop chan struct{}
	done chan struct{}
	cur  piece
	rest []byte
	seen func([]byte)
}

type piece struct {
	b   []byte
	err error
}

// ReadAhead reads r in a goroutine, up to n chunks of size bytes ahead. Seen,
// if not nil, is called with every piece as it is taken, by the reader's
// goroutine. Close waits until r is not read any more.
func ReadAhead(r io.Reader, n, size int, seen func([]byte)) *Ahead {
	a := &Ahead{full: make(chan piece, n), free: make(chan []byte, n), stop: make(chan struct{}), done: make(chan struct{}), seen: seen}
	for range n {
		a.free <- make([]byte, size)
	}
	go a.fill(r)
	return a
}

func (a *Ahead) fill(r io.Reader) {
	defer close(a.done)
	for {
		var b []byte
		select {
		case b = <-a.free:
		case <-a.stop:
			return
		}
		n, err := fillHalf(r, b[:cap(b)])
		select {
		case a.full <- piece{b[:n], err}:
		case <-a.stop:
			return
		}
		if err != nil {
			return
		}
	}
}

// fillHalf reads until half of b is full. Other than for io.ReadAtLeast the end
// of r is io.EOF also behind some bytes, and only r itself can say that it was
// cut off.
func fillHalf(r io.Reader, b []byte) (n int, err error) {
	for n < len(b)/2 && err == nil {
		var more int
		more, err = r.Read(b[n:])
		n += more
	}
	return n, err
}

func (a *Ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.cur.err != nil {
			return 0, a.cur.err
		}
		if a.cur.b != nil {
			a.free <- a.cur.b
		}
		a.cur = <-a.full
		a.rest = a.cur.b
		if a.seen != nil {
			a.seen(a.rest)
		}
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends reading ahead.
func (a *Ahead) Close() error {
	close(a.stop)
	<-a.done
	return nil
}
