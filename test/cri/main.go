package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// patience is how long a call may take.
const patience = 2 * time.Minute

// largest bounds a reply, in bytes.
const largest = 16 << 20

//go:embed api.proto
var api string

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: cri SOCKET METHOD|exec JSON")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "cri:", err)
		os.Exit(1)
	}
}

func run(socket, method, text string) error {
	s, err := parseSchema(api)
	if err != nil {
		return err
	}
	var request map[string]any
	if err := json.Unmarshal([]byte(text), &request); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := client{schema: s, socket: socket}
	if method == "exec" {
		reply, err := c.call(ctx, "Exec", request)
		if err != nil {
			return err
		}
		at, _ := reply["url"].(string)
		return stream(ctx, at, os.Stdin, os.Stdout, os.Stderr)
	}
	reply, err := c.call(ctx, method, request)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(reply)
}

// A client calls one runtime.
type client struct {
	schema schema
	socket string
}

// call sends a request of runtime.v1.RuntimeService and waits for its reply.
func (c client) call(ctx context.Context, method string, request map[string]any) (map[string]any, error) {
	message, err := c.schema.encode(method+"Request", request)
	if err != nil {
		return nil, err
	}
	// One byte says that nothing is compressed, four how long the message is.
	body := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	r, err := http.NewRequestWithContext(ctx, "POST", "http://runtime/runtime.v1.RuntimeService/"+method, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	var clear http.Protocols
	clear.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &clear, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", c.socket)
	}}
	defer transport.CloseIdleConnections()
	reply, err := transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	text, err := io.ReadAll(io.LimitReader(reply.Body, largest))
	if err != nil {
		return nil, err
	}
	if err := status(reply); err != nil {
		return nil, err
	}
	if len(text) < 5 || int(binary.BigEndian.Uint32(text[1:])) != len(text)-5 {
		return nil, errors.New("a reply that is cut off")
	}
	return c.schema.decode(method+"Response", text[5:])
}

// status is the error in a reply's trailer, or in its header where no message comes.
func status(reply *http.Response) error {
	for _, from := range []http.Header{reply.Trailer, reply.Header} {
		switch code := from.Get("Grpc-Status"); code {
		case "":
		case "0":
			return nil
		default:
			text, err := url.PathUnescape(from.Get("Grpc-Message"))
			if err != nil {
				text = from.Get("Grpc-Message")
			}
			return fmt.Errorf("%s (status %s)", text, code)
		}
	}
	return fmt.Errorf("no status of gRPC, HTTP's is %s", reply.Status)
}
