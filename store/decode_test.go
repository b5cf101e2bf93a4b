package store

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
)

type named string

type base struct {
	A int    `json:"a"`
	B string `json:"b,omitempty"`
}

// everything has each kind of field that documents have.
type everything struct {
	base
	S    string
	N    named `json:"n"`
	I8   int8
	U    *uint64 `json:"u,omitempty"`
	F    float64
	T    bool
	L    []base
	P    **base
	M    map[string]string
	MM   map[named][]int
	When time.Time
	Took time.Duration
	Raw  json.RawMessage
	Mode *os.FileMode
	D    []byte
	LS   []string
	Skip int `json:"-"`
}

var documents = []string{
	`{}`, `null`, ` { } `, `[]`, `{"a":1,"b":"x","S":"é\n\"\\\/\u00e9","n":"y","I8":-128,"u":18446744073709551615,"F":-1.5e3,"T":true}`,
	`{"L":[{"a":2},null,{"b":"c"}],"P":{"a":3},"M":{"x":"y","":""},"MM":{"k":[1,2,3],"l":null},"When":"2026-11-24T17:00:00Z","Took":5,"Raw":{"any":[1]},"Mode":493}`,
	`{"A":1}`, `{"a":1,"a":2}`, `{"I8":128}`, `{"I8":1.0}`, `{"u":-1}`, `{"u":null,"L":null,"M":null,"P":null,"S":null,"T":null}`, `{"L":[]}`,
	`{"x":{"y":[{"z":1}]},"S":"after"}`, `{"S":"\ud83d\ude00"}`, `{"S":"\ud83d"}`, "{\"S\":\"\xff\"}", "{\"S\":\"\n\"}", `{"S":"x}`, `{"S":1}`, `{"a":01}`, `{"a":1}x`, `{"a":1,}`, `{"T":truE}`,
	`{"M":{"x":"1","x":"2"}}`, `{"Skip":1,"inner":2}`, `{"When":"yesterday"}`, `{"F":1e999}`, `{"x":[1,2`, `{"x":-}`, `{"x":1.}`, `{"x":"\q"}`, `{"base":{"a":1}}`,
	`{"LS":["a",null,"b"]}`, `{"LS":[]}`, `{"LS":null}`, `{"LS":["a",]}`, `{"LS":[1]}`, `{"LS":{}}`, `{"LS":["a"`, `{"M":{"x":null,"y":"z"}}`, `{"M":{"x":1}}`, `{"M":[]}`, `{"S":null}`, `{"T":true,"S":"x","a":1}`,
	`{"D":"aGVsbG8="}`, `{"D":""}`, `{"D":null}`, `{"D":"aGVs\r\nbG8="}`, `{"D":"a"}`, `{"D":[1,2]}`, `{"D":7}`, `{"D":"a\u0047VsbG8="}`,
}

// Decode gives what encoding/json gives, value or error.
func TestDecodeIsEncodingJSON(t *testing.T) {
	for _, text := range documents {
		agree(t, []byte(text))
	}
}

// An OCI spec as runtimes write it takes the fast way.
func TestDecodeOfASpecIsPlain(t *testing.T) {
	files, _ := filepath.Glob("../test/*/testdata/*.json")
	more, _ := filepath.Glob("../container/*/testdata/*.json")
	plain := 0
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		agree(t, text)
		if decodePlain(text, new(specs.Spec)) == nil {
			plain++
		}
	}
	if decodePlain(minimalSpec, new(specs.Spec)) != nil {
		t.Error("a spec is not plain")
	}
	t.Logf("%d of %d documents are plain", plain, len(files)+len(more))
}

func agree(t *testing.T, text []byte) {
	t.Helper()
	same[everything](t, text)
	same[specs.Spec](t, text)
}

func same[T any](t *testing.T, text []byte) {
	t.Helper()
	var ours, theirs T
	mine, wants := Decode(text, &ours), json.Unmarshal(text, &theirs)
	if (mine == nil) != (wants == nil) || mine != nil && mine.Error() != wants.Error() {
		t.Errorf("%s: error %v; encoding/json has %v", text, mine, wants)
	}
	if wants == nil && !reflect.DeepEqual(ours, theirs) {
		t.Errorf("%s:\n%+v; encoding/json gives\n%+v", text, ours, theirs)
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range documents {
		f.Add([]byte(text))
	}
	f.Add(minimalSpec)
	f.Fuzz(agree)
}

func BenchmarkDecode(b *testing.B) {
	for _, way := range []struct {
		name string
		do   func([]byte, any) error
	}{{"Decode", Decode}, {"encoding/json", json.Unmarshal}} {
		b.Run(way.name, func(b *testing.B) {
			for b.Loop() {
				if err := way.do(minimalSpec, new(specs.Spec)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

var minimalSpec = []byte(`{
 "ociVersion": "1.3.0",
 "process": {
  "terminal": false,
  "user": {
   "uid": 0,
   "gid": 0
  },
  "args": [
   "/bin/true"
  ],
  "env": [
   "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
   "TERM=xterm"
  ],
  "cwd": "/",
  "capabilities": {
   "bounding": [
    "CAP_AUDIT_WRITE",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE"
   ],
   "effective": [
    "CAP_AUDIT_WRITE",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE"
   ],
   "permitted": [
    "CAP_AUDIT_WRITE",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE"
   ]
  },
  "noNewPrivileges": true
 },
 "root": {
  "path": "rootfs",
  "readonly": true
 },
 "hostname": "runc",
 "mounts": [
  {
   "destination": "/proc",
   "type": "proc",
   "source": "proc"
  },
  {
   "destination": "/dev",
   "type": "tmpfs",
   "source": "tmpfs",
   "options": [
    "nosuid",
    "strictatime",
    "mode=755",
    "size=65536k"
   ]
  },
  {
   "destination": "/dev/pts",
   "type": "devpts",
   "source": "devpts",
   "options": [
    "nosuid",
    "noexec",
    "newinstance",
    "ptmxmode=0666",
    "mode=0620",
    "gid=5"
   ]
  },
  {
   "destination": "/dev/shm",
   "type": "tmpfs",
   "source": "shm",
   "options": [
    "nosuid",
    "noexec",
    "nodev",
    "mode=1777",
    "size=65536k"
   ]
  },
  {
   "destination": "/dev/mqueue",
   "type": "mqueue",
   "source": "mqueue",
   "options": [
    "nosuid",
    "noexec",
    "nodev"
   ]
  },
  {
   "destination": "/sys",
   "type": "sysfs",
   "source": "sysfs",
   "options": [
    "nosuid",
    "noexec",
    "nodev",
    "ro"
   ]
  },
  {
   "destination": "/sys/fs/cgroup",
   "type": "cgroup",
   "source": "cgroup",
   "options": [
    "nosuid",
    "noexec",
    "nodev",
    "relatime",
    "ro"
   ]
  }
 ],
 "linux": {
  "resources": {
   "devices": [
    {
     "allow": false,
     "access": "rwm"
    }
   ]
  },
  "namespaces": [
   {
    "type": "pid"
   },
   {
    "type": "network"
   },
   {
    "type": "ipc"
   },
   {
    "type": "uts"
   },
   {
    "type": "mount"
   }
  ],
  "maskedPaths": [
   "/proc/acpi",
   "/proc/asound",
   "/proc/kcore",
   "/proc/keys",
   "/proc/latency_stats",
   "/proc/timer_list",
   "/proc/timer_stats",
   "/proc/sched_debug",
   "/sys/firmware",
   "/proc/scsi"
  ],
  "readonlyPaths": [
   "/proc/bus",
   "/proc/fs",
   "/proc/irq",
   "/proc/sys",
   "/proc/sysrq-trigger"
  ]
 }
}`)

func TestDecodeWithout(t *testing.T) {
	const text = `{"a":1,"b":"x","S":"s","L":[{"a":2,"b":"y"}],"M":{"k":"v"}}`
	var got everything
	parts := []Part{{reflect.TypeFor[everything](), "M"}, {reflect.TypeFor[base](), "b"}}
	if err := decodePlain([]byte(text), &got, parts...); err != nil {
		t.Fatal(err)
	}
	want := everything{base: base{A: 1, B: "x"}, S: "s", L: []base{{A: 2}}} // b of the embedded one is everything's
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v; want %+v", got, want)
	}
	if decodePlain([]byte(`{"M":{"k":}}`), &got, parts...) == nil {
		t.Error("a part that is left out may be damaged")
	}
}
