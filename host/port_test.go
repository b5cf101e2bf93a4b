package host

import (
	"net"
	"os"
	"testing"
)

func TestPortOwner(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if pid, name := PortOwner("tcp", port); pid != os.Getpid() || name == "" {
		t.Errorf("PortOwner = %d %q; want this process", pid, name)
	}
	if pid, _ := PortOwner("udp", port); pid != 0 {
		t.Errorf("PortOwner of udp = %d", pid)
	}
}

func FuzzSocketsAt(f *testing.F) {
	f.Add("  sl  local_address rem_address\n   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 12345 1\n", uint16(8080))
	f.Fuzz(func(t *testing.T, table string, port uint16) { socketsAt(table, port) })
}
