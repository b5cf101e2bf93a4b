package main

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// A stream is a connection that is written to in slices. Its ends block, as most
// programs' do, each in a thread of its own: what they cost is the kernel's.
type stream struct {
	client, server *os.File
	sent           int64
	received       atomic.Int64
}

// connect makes the way's stream.
func (w *way) connect() error {
	accepted := make(chan net.Conn, 1)
	stop, err := w.serve(func(c net.Conn) { accepted <- c })
	if err != nil {
		return err
	}
	defer stop()
	var client net.Conn
	if err := w.client.Do(func() (err error) { client, err = w.dial(); return err }); err != nil {
		return err
	}
	defer client.Close()
	server := <-accepted
	defer server.Close()
	s := &stream{}
	var err1, err2 error
	s.client, err1 = blocking(client)
	s.server, err2 = blocking(server)
	w.stream = s
	go s.receive()
	return errors.Join(err1, err2)
}

// blocking is a connection as a file whose calls wait in the kernel.
func blocking(c net.Conn) (*os.File, error) {
	f, err := c.(*net.TCPConn).File()
	if err == nil {
		f.Fd() // os.File says that this makes it so
	}
	return f, err
}

func (s *stream) receive() {
	b := make([]byte, block)
	for {
		n, err := s.server.Read(b)
		if err != nil || n == 0 {
			return
		}
		s.received.Add(int64(n))
	}
}

// Close ends both ends.
func (s *stream) Close() {
	s.client.Close()
	s.server.Close()
}

// block is what is written and read at once, as iperf3 does.
const block = 128 << 10

// throughput is how many gigabits a second arrive.
func throughput(w *way) (float64, error) {
	s := w.stream
	b := make([]byte, block)
	before, start := s.sent, time.Now()
	for time.Since(start) < *slice {
		n, err := s.client.Write(b)
		s.sent += int64(n)
		if err != nil {
			return 0, err
		}
	}
	for s.received.Load() < s.sent {
		if time.Since(start) > *slice+10*time.Second {
			return 0, errors.New("what was sent does not arrive")
		}
		time.Sleep(50 * time.Microsecond)
	}
	return float64(s.sent-before) * 8 / 1e9 / time.Since(start).Seconds(), nil
}
