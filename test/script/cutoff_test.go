package script

import (
	"io"
	"net"
	"strconv"
	"sync/atomic"
	"testing"

	"rsc.io/script"
)

// cutoffCmd puts a wire before the registry that breaks: once it has carried
// so many bytes it carries no more, and nobody answers.
func cutoffCmd(t *testing.T) script.Cmd {
	return command("let $CUTOFF lead to $REGISTRY, for so many bytes", "bytes", 1, func(s *script.State, args []string) (string, string, error) {
		most, err := strconv.ParseInt(args[0], 10, 64)
		if err != nil {
			return "", "", err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return "", "", err
		}
		t.Cleanup(func() { l.Close() })
		registry, _ := s.LookupEnv("REGISTRY")
		go carry(l, registry, most)
		return "", "", s.Setenv("CUTOFF", l.Addr().String())
	})
}

// carry passes on what comes until most bytes went back.
func carry(l net.Listener, to string, most int64) {
	var left atomic.Int64
	left.Store(most)
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		go io.Copy(out, in)
		go func() {
			defer in.Close()
			defer out.Close()
			buffer := make([]byte, 4096)
			for left.Load() > 0 {
				n, err := out.Read(buffer)
				if err != nil || left.Add(-int64(n)) < 0 {
					break
				}
				in.Write(buffer[:n])
			}
			if left.Load() <= 0 {
				l.Close()
			}
		}()
	}
}
