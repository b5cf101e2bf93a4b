package rules_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/need"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// An association of SCTP is made through a published port, and data of it come
// back: its four messages (RFC 9260, section 5.1) by raw sockets, so that the
// packet filter is tested also where the kernel itself has no SCTP. One that has
// answers such messages itself.
func TestSCTPAssociationThroughAPublishedPort(t *testing.T) {
	s := set(t)
	if fd, err := openSCTP(s.web); err == nil {
		unix.Close(fd)
		t.Skip("the kernel has SCTP, and a test of its own")
	}
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.SCTP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 36412}}}))
	const clientTag, serverTag = 0x11111111, 0x22222222
	server, client := rawSCTP(t, s.web, "10.2.0.2"), rawSCTP(t, s.stranger, "192.0.2.2")
	go func() {
		for {
			p, from, ok := readSCTP(server, time.Minute)
			if !ok {
				return
			}
			answer := map[byte]struct {
				chunk byte
				body  []byte
			}{
				sctpInit:       {sctpInitAck, append(initBody(serverTag), 0, 7, 0, 8, 'c', 'o', 'o', 'k')},
				sctpCookieEcho: {sctpCookieAck, nil},
				sctpData:       {sctpData, append(make([]byte, 12), from.String()...)},
			}[p[12]]
			if binary.BigEndian.Uint16(p[2:]) == 36412 {
				_, _ = server.WriteTo(sctpPacket(36412, binary.BigEndian.Uint16(p), clientTag, answer.chunk, answer.body), from)
			}
		}
	}()
	to := &net.IPAddr{IP: net.IPv4(192, 0, 2, 1)}
	say := func(tag uint32, chunk byte, body []byte) []byte {
		t.Helper()
		for range 100 { // a neighbour may not be known yet
			_, err := client.WriteTo(sctpPacket(5000, 8080, tag, chunk, body), to)
			must(t, err)
			if p, from, ok := readSCTP(client, 300*time.Millisecond); ok && from.String() == "192.0.2.1" && binary.BigEndian.Uint16(p) == 8080 {
				return p
			}
		}
		t.Fatalf("chunk %d is not answered", chunk)
		return nil
	}
	if p := say(0, sctpInit, initBody(clientTag)); p[12] != sctpInitAck || binary.BigEndian.Uint32(p[16:]) != serverTag {
		t.Fatalf("INIT is answered by % x", p)
	}
	if p := say(serverTag, sctpCookieEcho, []byte("cook")); p[12] != sctpCookieAck {
		t.Fatalf("COOKIE ECHO is answered by % x", p)
	}
	if p := say(serverTag, sctpData, append(make([]byte, 12), "hello..."...)); p[12] != sctpData || string(p[28:37]) != "192.0.2.2" {
		t.Errorf("DATA are answered by % x; want the client's own address in them", p)
	}
}

// Kinds of chunks: RFC 9260, section 3.2.
const (
	sctpData       = 0
	sctpInit       = 1
	sctpInitAck    = 2
	sctpCookieEcho = 10
	sctpCookieAck  = 11
)

// initBody is that of INIT: the tag, the window, streams both ways, the first
// number.
func initBody(tag uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, tag)
	b = binary.BigEndian.AppendUint32(b, 65536)
	return append(b, 0, 1, 0, 1, 0, 0, 0, 1)
}

// sctpPacket is a packet of one chunk, with the sum that the kernel checks.
func sctpPacket(from, to uint16, tag uint32, chunk byte, body []byte) []byte {
	p := binary.BigEndian.AppendUint16(nil, from)
	p = binary.BigEndian.AppendUint16(p, to)
	p = binary.BigEndian.AppendUint32(p, tag)
	p = append(p, 0, 0, 0, 0, chunk, 0)
	if chunk == sctpData {
		p[13] = 3 // all of a message
	}
	p = append(binary.BigEndian.AppendUint16(p, uint16(4+len(body))), body...)
	for len(p)%4 != 0 {
		p = append(p, 0)
	}
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

func rawSCTP(t *testing.T, n *network.Namespace, address string) net.PacketConn {
	t.Helper()
	var c net.PacketConn
	must(t, n.Do(func() (err error) { c, err = net.ListenPacket("ip4:132", address); return err }))
	t.Cleanup(func() { c.Close() })
	return c
}

// readSCTP reads one packet whose sum is right.
func readSCTP(c net.PacketConn, wait time.Duration) ([]byte, net.Addr, bool) {
	b := make([]byte, 1500)
	_ = c.SetReadDeadline(time.Now().Add(wait))
	n, from, err := c.ReadFrom(b)
	if err != nil || n < 16 {
		return nil, nil, false
	}
	sum := binary.LittleEndian.Uint32(b[8:])
	clear(b[8:12])
	return b[:n], from, sum == crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli))
}

// The kernel's own SCTP, where it has one: a client's text goes to a published
// port and comes back.
func TestSCTPOfTheKernelThroughAPublishedPort(t *testing.T) {
	s := set(t)
	must(t, s.rules.Add(rules.State{Ports: []rules.Port{{Proto: rules.SCTP, HostPort: 8080, To: addr("10.2.0.2"), ToPort: 36412}}}))
	listener := kernelSCTP(t, s.web)
	must(t, unix.Bind(listener, &unix.SockaddrInet4{Port: 36412}), unix.Listen(listener, 1))
	type met struct {
		from unix.Sockaddr
		err  error
	}
	server := make(chan met, 1)
	go func() {
		c, from, err := unix.Accept(listener)
		if err == nil {
			defer unix.Close(c)
			b := make([]byte, 100)
			var n int
			if n, err = unix.Read(c, b); err == nil {
				_, err = unix.Write(c, b[:n])
			}
		}
		server <- met{from, err}
	}()
	client := kernelSCTP(t, s.stranger)
	must(t, unix.Connect(client, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 8080}))
	_, err := unix.Write(client, []byte("hello"))
	must(t, err)
	b := make([]byte, 100)
	n, err := unix.Read(client, b)
	must(t, err)
	if string(b[:n]) != "hello" {
		t.Errorf("what comes back is %q", b[:n])
	}
	m := <-server
	must(t, m.err)
	if from, ok := m.from.(*unix.SockaddrInet4); !ok || from.Addr != [4]byte{192, 0, 2, 2} {
		t.Errorf("the server sees %+v; want the client's own address", m.from)
	}
}

// kernelSCTP is a socket of the kernel's SCTP in n, which waits for nobody
// longer than a minute.
func kernelSCTP(t *testing.T, n *network.Namespace) int {
	t.Helper()
	fd, err := openSCTP(n)
	if errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.ESOCKTNOSUPPORT) {
		need.Missing(t, "sctp", "modprobe sctp")
	}
	must(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	wait := unix.Timeval{Sec: 60}
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait))
	return fd
}

func openSCTP(n *network.Namespace) (fd int, err error) {
	err = n.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		return err
	})
	return fd, err
}
