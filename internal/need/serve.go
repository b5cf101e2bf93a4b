package need

import (
	"net"
	"testing"
)

// Serve does something with each client of a listener until the test ends.
func Serve(t testing.TB, l net.Listener, do func(net.Conn)) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go do(c)
		}
	}()
}
