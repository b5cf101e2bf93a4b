package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestMessagesComeBackAsTheyWere(t *testing.T) {
	s, err := parseSchema(api)
	if err != nil {
		t.Fatal(err)
	}
	const text = `{"cmd":["sh","-c"],"container_id":"x","stdout":true,"tty":true}`
	var request map[string]any
	if err := json.Unmarshal([]byte(text), &request); err != nil {
		t.Fatal(err)
	}
	message, err := s.encode("ExecRequest", request)
	if err != nil {
		t.Fatal(err)
	}
	if want := "\x0a\x01x\x12\x02sh\x12\x02-c\x18\x01\x28\x01"; string(message) != want {
		t.Errorf("encoded as %q, want %q", message, want)
	}
	back, err := s.decode("ExecRequest", message)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := json.Marshal(back); string(got) != text {
		t.Errorf("came back as %s, want %s", got, text)
	}
}

func TestEncodeRefusesAFieldThatDoesNotExist(t *testing.T) {
	s, err := parseSchema(api)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.encode("ExecRequest", map[string]any{"command": "sh"}); err == nil {
		t.Error("took a field that api.proto does not have")
	}
}

// Every kind of a field is protobuf's or a message's.
func TestSchemaKnowsItsKinds(t *testing.T) {
	s, err := parseSchema(api)
	if err != nil {
		t.Fatal(err)
	}
	for message, fields := range s {
		for _, f := range fields {
			if _, ok := s[f.kind]; !ok && !strings.Contains(" string bytes bool int32 int64 uint32 uint64 ", " "+f.kind+" ") {
				t.Errorf("%s.%s is a %s, which nobody knows", message, f.name, f.kind)
			}
		}
	}
}

// A runtime may answer anything: it is told or refused.
func FuzzDecode(f *testing.F) {
	s, err := parseSchema(api)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("\x0a\x03out\x12\x03err\x18\x03"))
	f.Add([]byte("\x0a\x04\x22\x02\x12\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s.decode("ExecSyncResponse", data)
		s.decode("ListContainersResponse", data)
	})
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte("\x82\x02\x01x"))
	f.Add([]byte("\x82\x7e\x00\x02\x01x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReader(bytes.NewReader(data))
		for {
			if _, _, err := receive(r); err != nil {
				return
			}
		}
	})
}
