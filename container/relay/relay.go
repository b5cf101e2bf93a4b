// Package relay sends what a container writes elsewhere, in place of a file:
// to journald, to syslog.
//
//	takes    entries, a format, a way to connect
//	gives    messages to a socket
//	touches  the socket
//	state    the messages that wait, in memory
//
// A Relay never waits for who listens, unless it is asked to: messages wait in a
// queue of bounded size, one goroutine sends them, and connects anew where the
// other side has gone. What has no room in the queue is lost, and counted. So
// neither a slow journald nor a syslog server that is away holds a container up.
//
//	                    Write                 sent
//	(nothing waits) ────────────▶ (waiting) ────────▶ (nothing waits)
//	                                 │ no room
//	                                 └────────▶ lost
//
// A Relay is safe for concurrent use.
package relay

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"kiste/container/logfile"
	"kiste/fault"
)

// Options say where to and how.
type Options struct {
	Name string // of the driver, for errors

	// Dial connects. It is called again whenever a connection is lost.
	Dial func() (*os.File, error)

	// Format is an entry as a message.
	Format func(*logfile.Entry) []byte

	// Limit is how many bytes of messages wait; 0: a mebibyte.
	Limit int

	// Wait lets Write wait for room, as long as somebody listens, or nobody
	// knows yet.
	Wait bool

	// Patience is how long Close waits for what is left; 0: two seconds.
	Patience time.Duration
}

// Of the pause before connecting anew, and of one write.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
	slowWrite  = 5 * time.Second
)

// A Relay sends entries.
type Relay struct {
	o Options

	mu        sync.Mutex
	room      *sync.Cond // something was sent, or the connection has changed
	queue     [][]byte
	size      int
	connected bool
	failure   error // why the last message could not be sent; nil: it could
	missed    int   // entries that are lost, of which nobody has been told yet
	closed    bool

	more chan struct{} // something waits
	quit chan struct{} // closed when nobody waits for the rest any more
	done chan struct{}
}

// Open begins to send. Whether anybody listens turns out later.
func Open(o Options) *Relay {
	if o.Limit == 0 {
		o.Limit = 1 << 20
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	r := &Relay{o: o, more: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{})}
	r.room = sync.NewCond(&r.mu)
	go r.run()
	return r
}

// Write queues entries; those without a time get the present one. The error says
// that some are lost, and why, as soon as that is known; fault.Unavailable.
func (r *Relay) Write(entries ...logfile.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range entries {
		if e.Time.IsZero() {
			e.Time = time.Now()
		}
		b := r.o.Format(&e)
		for r.o.Wait && (r.connected || r.failure == nil) && !r.closed && r.size > 0 && r.size+len(b) > r.o.Limit {
			r.wake()
			r.room.Wait()
		}
		if r.closed || r.size > 0 && r.size+len(b) > r.o.Limit {
			r.missed++
			continue
		}
		r.queue, r.size = append(r.queue, b), r.size+len(b)
	}
	r.wake()
	if !r.connected && r.failure == nil && !r.closed {
		return nil // nobody knows yet why
	}
	return r.lost(0)
}

// wake tells who sends that something waits, or that nothing more comes.
func (r *Relay) wake() {
	select {
	case r.more <- struct{}{}:
	default:
	}
}

// lost tells of so many and those that were missed before.
func (r *Relay) lost(n int) error {
	n, r.missed = n+r.missed, 0
	if n == 0 {
		return nil
	}
	why := r.failure
	if why == nil {
		why = errors.New("it takes them more slowly than they come")
	}
	return &fault.Error{Op: "send log to", On: r.o.Name, Kind: fault.Unavailable, Err: fmt.Errorf("%d entries are lost: %w", n, why)}
}

// Close waits a while until all is sent. The error says how much is lost.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	r.room.Broadcast()
	r.mu.Unlock()
	r.wake()
	late := time.AfterFunc(r.o.Patience, func() { close(r.quit) })
	<-r.done
	late.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lost(len(r.queue))
}

// first is the message that is sent next; over: there is none, and none comes.
func (r *Relay) first() (b []byte, over bool) {
	for {
		r.mu.Lock()
		switch {
		case len(r.queue) > 0:
			b = r.queue[0]
			r.mu.Unlock()
			return b, false
		case r.closed:
			r.mu.Unlock()
			return nil, true
		}
		r.mu.Unlock()
		select {
		case <-r.more:
		case <-r.quit:
			return nil, true
		}
	}
}

// sent takes the first message away, which was sent or cannot be.
func (r *Relay) sent(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.queue[0] = nil
	r.queue, r.size = r.queue[1:], r.size-len(b)
	r.failure = nil
	r.room.Broadcast()
}

func (r *Relay) state(connected bool, failure error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.connected = connected
	if failure != nil {
		r.failure = failure
	}
	r.room.Broadcast()
}

// run sends. A message that could not be sent whole is sent again, on the next
// connection.
func (r *Relay) run() {
	defer close(r.done)
	var to *os.File
	defer func() {
		if to != nil {
			to.Close()
		}
	}()
	pause := firstPause
	for {
		b, over := r.first()
		if over {
			return
		}
		var err error
		if to == nil {
			to, err = r.o.Dial()
			r.state(err == nil, err)
		}
		if err == nil {
			err = r.write(to, b)
		}
		if err == nil {
			pause = firstPause
			continue
		}
		if to != nil {
			to.Close()
			to = nil
		}
		r.state(false, err)
		if !r.rest(pause) {
			return
		}
		pause = min(2*pause, lastPause)
	}
}

// rest waits before another try. It is false where nobody waits for that.
func (r *Relay) rest(pause time.Duration) bool {
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.quit:
		return false
	}
}

// write sends one message. One that is too long for a datagram is lost.
func (r *Relay) write(to *os.File, b []byte) error {
	_ = to.SetWriteDeadline(time.Now().Add(slowWrite))
	_, err := to.Write(b)
	if err == nil || errors.Is(err, syscall.EMSGSIZE) {
		r.sent(b)
		return nil
	}
	return err
}
