package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
)

// The channels of Kubernetes' protocol v4.channel.k8s.io: the first byte of
// each message says which one it is of.
const (
	stdin = iota
	stdout
	stderr
	ending // how the process has ended, as JSON
)

// The frames of WebSocket, RFC 6455 section 5.2.
const (
	final, masked = 0x80, 0x80
	binaryFrame   = 2
	closeFrame    = 8
)

// key is what the server is to answer to, so that no cache does in its place. On
// loopback is none.
const key = "MDEyMzQ1Njc4OWFiY2RlZg=="

// stream lets a process that a runtime has begun at a URL read and write. The
// end of in is not told to it, since the protocol has no word for that.
func stream(ctx context.Context, at string, in io.Reader, out, errs io.Writer) error {
	conn, r, err := upgrade(ctx, at)
	if err != nil {
		return err
	}
	defer conn.Close()
	go send(conn, in)
	for {
		kind, text, err := receive(r)
		if err != nil {
			return err
		}
		if kind == closeFrame {
			return errors.New("closed before the process ended")
		}
		if kind != binaryFrame || len(text) == 0 {
			continue
		}
		switch text[0] {
		case stdout:
			out.Write(text[1:])
		case stderr:
			errs.Write(text[1:])
		case ending:
			return outcome(text[1:])
		}
	}
}

// outcome is the error of a process that failed.
func outcome(text []byte) error {
	var s struct{ Status, Message string }
	if err := json.Unmarshal(text, &s); err != nil {
		return err
	}
	if s.Status != "Success" {
		return errors.New(s.Message)
	}
	return nil
}

// upgrade asks for WebSocket's protocol.
func upgrade(ctx context.Context, at string) (net.Conn, *bufio.Reader, error) {
	u, err := url.Parse(at)
	if err != nil {
		return nil, nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: %s\r\nOrigin: http://%s\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n", u.RequestURI(), u.Host, key, u.Host)
	r := bufio.NewReader(conn)
	reply, err := http.ReadResponse(r, nil)
	if err == nil && reply.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(reply.Status)
	}
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, r, nil
}

// send sends what comes in, masked, as clients must.
func send(conn net.Conn, in io.Reader) {
	text := make([]byte, 1+32<<10)
	for {
		n, err := in.Read(text[1:])
		if err != nil {
			return
		}
		text[0] = stdin
		frame := binary.BigEndian.AppendUint16([]byte{final | binaryFrame, masked | 126}, uint16(n+1))
		var mask [4]byte
		rand.Read(mask[:])
		frame = append(frame, mask[:]...)
		for i, c := range text[:n+1] {
			frame = append(frame, c^mask[i%4])
		}
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

// receive reads a frame of a server, which masks none.
func receive(r *bufio.Reader) (kind byte, text []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1])
	if more := map[uint64]int{126: 2, 127: 8}[size]; more > 0 {
		var long [8]byte
		if _, err := io.ReadFull(r, long[8-more:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(long[:])
	}
	if size > largest {
		return 0, nil, fmt.Errorf("a frame of %d bytes", size)
	}
	text = make([]byte, size)
	_, err = io.ReadFull(r, text)
	return head[0] & 0xf, text, err
}
