package bus

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"kiste/internal/need"
)

func TestParse(t *testing.T) {
	i32 := func(n int32) Value { return Value{Type: "i", Number: uint64(uint32(n))} }
	entry := func(k, v Value) Value { return Value{Type: "{" + k.Type + v.Type + "}", List: []Value{k, v}} }
	for _, tt := range []struct {
		name, text string
		want       Value
	}{
		{"a number", "5", i32(5)},
		{"a negative one", "-5", i32(-5)},
		{"a negative short one", "int16 -2", Value{Type: "n", Number: 0xfffe}},
		{"a negative long one", "int64 -2", Value{Type: "x", Number: 0xfffffffffffffffe}},
		{"one with a type", "uint64 123456789012", Uint64(123456789012)},
		{"one with a short type", "@u 7", Uint32(7)},
		{"hexadecimal", "uint32 0xff", Uint32(255)},
		{"octal", "byte 017", Value{Type: "y", Number: 15}},
		{"a double", "1.5", Value{Type: "d", Number: 0x3ff8000000000000}},
		{"a double by type", "double 1", Value{Type: "d", Number: 0x3ff0000000000000}},
		{"truth", " true ", Bool(true)},
		{"a text", "'it'", String("it")},
		{"a text in double quotes with escapes", `"a\"\\\n\u00e4\U0001f603"`, String("a\"\\\nä😃")},
		{"a path", "objectpath '/a/b'", Value{Type: "o", Text: "/a/b"}},
		{"bytes", `b"\0012"`, Bytes([]byte{1, '2', 0})},
		{"texts", "['a', \"b\"]", Array("s", String("a"), String("b"))},
		{"an empty list with a type", "@as []", Value{Type: "as"}},
		{"the type of one is that of all", "[1, uint64 2]", Array("t", Uint64(1), Uint64(2))},
		{"a variant", "<5>", Variant(i32(5))},
		{"structs", "[('/dev/null', 'rw')]", Array("(ss)", Struct(String("/dev/null"), String("rw")))},
		{"a struct of one", "('a',)", Struct(String("a"))},
		{"a dictionary", "{'a': <true>}", Array("{sv}", entry(String("a"), Variant(Bool(true))))},
		{"an empty dictionary with a type", "@a{ss} {}", Value{Type: "a{ss}"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.text)
			if err != nil || got.Type != tt.want.Type || !same(got, tt.want) {
				t.Errorf("Parse(%s) = %+v, %v; want %+v", tt.text, got, err, tt.want)
			}
		})
	}
	for _, text := range []string{"", "x", "[", "[1", "[1 2]", "[]", "{}", "()", "{'a'}", "{'a' 1}", "<1", "'a", `"\u12"`, "1 2", "uint64 -1", "byte 256", "0b1", "1_0", "@", "@a", "@z 1",
		"@as 'a'", "uint64 'a'", "uint32 uint64 1", "['a', 1]", "\"\xff\"", strings.Repeat("[", 100), strings.Repeat("<", 100) + "1", "@(ss) ('a',)"} {
		if v, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %+v; want it refused", text, v)
		}
	}
}

func TestNumbersBelowZero(t *testing.T) {
	for text, want := range map[string]int64{"-1": -1, "5": 5, "int16 -32768": -32768, "int16 32767": 32767, "-2147483648": -2147483648, "int64 -3": -3, "'a'": 0} {
		v, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.Signed(); got != want {
			t.Errorf("%s is %d, want %d", text, got, want)
		}
	}
}

// same tells empty lists and none not apart.
func same(a, b Value) bool {
	if a.Type != b.Type || a.Number != b.Number || a.Text != b.Text || len(a.List) != len(b.List) {
		return false
	}
	for i := range a.List {
		if !same(a.List[i], b.List[i]) {
			return false
		}
	}
	return true
}

// What Parse gives can be sent, and is read the same again.
func FuzzParse(f *testing.F) {
	f.Add("[('/dev/null', 'rw'), (\"\\u00e4\", 'm')]")
	f.Add("@a{sv} {'a': <uint64 5>, 'b': <[1, 2]>}")
	f.Add(`b"ab\001"`)
	f.Add("-1") // had more bits than are sent once
	f.Add("[int16 -1, -0x8000]")
	f.Add("(-1, int64 -1, double -1, byte 255, uint16 65535)")
	f.Add("@" + strings.Repeat("a{s", 60)) // took exponential time once
	f.Fuzz(func(t *testing.T, text string) {
		v, err := Parse(text)
		if err != nil {
			return
		}
		var e encoder
		if err := e.value(v); err != nil {
			return // a text with NUL, a path that is none
		}
		d := decoder{b: e.b, order: binary.LittleEndian}
		again, err := d.value(v.Type, 0)
		if err != nil || !same(v, again) || d.at != len(e.b) {
			t.Errorf("%q: %+v -> %x -> %+v, %v", text, v, e.b, again, err)
		}
	})
}

// Whatever a peer sends is read or refused.
func FuzzMessage(f *testing.F) {
	m, err := callMessage(1, Method{"a.b", "/a", "a.b", "C"}, []Value{String("x"), Array("(sv)", Struct(String("k"), Variant(Uint64(1))))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	f.Fuzz(func(t *testing.T, b []byte) {
		size, err := messageSize(b)
		if err != nil || size == 0 || size > len(b) {
			return
		}
		_, _ = parseMessage(b[:size])
	})
}

func TestMessagesComeBack(t *testing.T) {
	args := []Value{String("name"), Bool(true), Array("(sv)", Struct(String("k"), Variant(Uint64(1<<40))), Struct(String("l"), Variant(Array("s")))), Bytes([]byte("xyz"))}
	b, err := callMessage(7, Method{"dest.x", "/a/b", "iface.y", "Member"}, args)
	if err != nil {
		t.Fatal(err)
	}
	size, err := messageSize(b)
	if err != nil || size != len(b) {
		t.Fatalf("size %d, %v; want %d", size, err, len(b))
	}
	m, err := parseMessage(b)
	if err != nil || m.path != "/a/b" || m.iface != "iface.y" || m.member != "Member" || len(m.body) != len(args) {
		t.Fatalf("%+v, %v", m, err)
	}
	for i := range args {
		if !same(m.body[i], args[i]) {
			t.Errorf("argument %d: %+v, want %+v", i, m.body[i], args[i])
		}
	}
}

func TestBadValuesAreNotSent(t *testing.T) {
	for _, v := range []Value{{Type: ""}, {Type: "z"}, {Type: "ss"}, {Type: "a"}, {Type: "()"}, {Type: "{ss}x"}, {Type: "a{vs}"}, String("a\x00b"), String("\xff"), {Type: "o", Text: "a"}, {Type: "o", Text: "/a/"},
		{Type: "g", Text: "("}, {Type: "v"}, Array("s", Bool(true)), {Type: "(s)"}, {Type: "(s)", List: []Value{Bool(true)}}} {
		var e encoder
		if err := e.value(v); err == nil {
			t.Errorf("%+v was written as %x", v, e.b)
		}
	}
}

// daemon starts a message bus of its own.
func daemon(t *testing.T) string {
	t.Helper()
	need.Program(t, "dbus-daemon")
	dir := t.TempDir()
	config, socket := filepath.Join(dir, "config"), filepath.Join(dir, "bus")
	if err := os.WriteFile(config, []byte(`<busconfig><type>session</type><listen>unix:path=`+socket+`</listen><auth>EXTERNAL</auth>
<policy context="default"><allow send_destination="*" eavesdrop="true"/><allow eavesdrop="true"/><allow own="*"/></policy></busconfig>`), 0o600); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--print-address=1", "--nopidfile")
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	buf := make([]byte, 256)
	if _, err := out.Read(buf); err != nil {
		t.Fatal(err)
	}
	return socket
}

func TestARealBus(t *testing.T) {
	socket := daemon(t)
	c, err := DialBus(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	of := func(member string) Method {
		return Method{"org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", member}
	}
	names, err := c.Call(of("ListNames"))
	if err != nil || len(names) != 1 || len(names[0].List) == 0 {
		t.Errorf("ListNames: %+v, %v", names, err)
	}
	var failed *Error
	if _, err := c.Call(of("GetNameOwner"), String("no.such.name")); !errors.As(err, &failed) || failed.Name != "org.freedesktop.DBus.Error.NameHasNoOwner" || failed.Text == "" {
		t.Errorf("GetNameOwner: %v", err)
	}
	if _, err := c.Call(of("AddMatch"), String("type='signal',member='NameOwnerChanged'")); err != nil {
		t.Fatal(err)
	}
	other, err := DialBus(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Call(of("RequestName"), String("kiste.Test"), Uint32(0)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Call(of("GetId")); err != nil { // the signal comes before the answer
		t.Fatal(err)
	}
	err = c.Wait(func(s *Signal) bool { return s.Member == "NameOwnerChanged" && s.Args[0].Text == "kiste.Test" })
	if err != nil {
		t.Error(err)
	}
}

func TestNobodyThere(t *testing.T) {
	if _, err := Dial(filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("got %v", err)
	}
}

// A peer that says nonsense, or nothing.
func TestPeersThatMisbehave(t *testing.T) {
	for name, answer := range map[string]string{"rejects": "REJECTED EXTERNAL\r\n", "talks": strings.Repeat("DATA\r\n", 20), "long": strings.Repeat("x", 10000), "hangs up": ""} {
		c, peer := pair(t)
		go func() {
			peer.Write([]byte(answer))
			time.Sleep(10 * time.Millisecond)
			peer.Close()
		}()
		if err := (&Conn{f: c}).authenticate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	c, peer := pair(t)
	peer.Write([]byte("l\x02\x00\x01\xff\xff\xff\xff00000000"))
	if _, err := (&Conn{f: c}).Call(Method{"", "/", "a.b", "C"}); err == nil {
		t.Error("a message of 4 GB was waited for")
	}
}

func pair(t *testing.T) (ours, peer *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, peer = os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "peer")
	t.Cleanup(func() { ours.Close(); peer.Close() })
	return ours, peer
}
