package netlink

import (
	"kiste/internal/sys"
)

// A Watch hears what the kernel tells groups of a protocol.
type Watch struct {
	fd     int
	buffer []byte
}

// Join makes a Watch in the calling thread's network namespace. Its
// descriptor, FD, is readable when there is something to hear.
func Join(protocol int, groups ...int) (*Watch, error) {
	fd, err := sys.Netlink(protocol, 0)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		if err := sys.NetlinkJoin(fd, g); err != nil {
			_ = sys.Close(fd)
			return nil, err
		}
	}
	return &Watch{fd, make([]byte, receiveSize)}, nil
}

// FD is the descriptor, for poll(2).
func (w *Watch) FD() int { return w.fd }

// Close gives the descriptor back.
func (w *Watch) Close() error { return sys.Close(w.fd) }

// Next waits for messages. An ENOBUFS says that some were lost.
func (w *Watch) Next() ([]Message, error) {
	n, err := sys.NetlinkReceive(w.fd, w.buffer)
	if err != nil {
		return nil, err
	}
	all, _, _, err := parseMessages(w.buffer[:n], 0, 1<<32-1)
	return all, err
}
