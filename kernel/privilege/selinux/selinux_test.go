package selinux

import (
	"strings"
	"testing"
)

func TestContext(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Context
	}{
		{"with a level", "system_u:system_r:container_t:s0:c1,c2", Context{"system_u", "system_r", "container_t", "s0:c1,c2"}},
		{"a range", "u:r:t:s0-s0:c0.c1023", Context{"u", "r", "t", "s0-s0:c0.c1023"}},
		{"without a level", "u:r:t", Context{"u", "r", "t", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(tt.in)
			if err != nil || got != tt.want || got.String() != tt.in {
				t.Errorf("got %+v (%s), %v", got, got, err)
			}
		})
	}
	for _, bad := range []string{"", "a", "a:b", ":b:c", "a::c", "a:b:", "a:b:c:s0\n", "a:b:c\x00", `"a:b:c`} {
		if c, err := Parse(bad); err == nil {
			t.Errorf("%q is %+v", bad, c)
		}
	}
	if got := (Context{"u", "r", "t", ""}).At("s0:c1,c2").String(); got != "u:r:t" {
		t.Errorf("a level in a policy without: %s", got)
	}
}

func TestParseContexts(t *testing.T) {
	const both = "process = \"u:r:container_t:s0\"\nfile = \"u:o:container_file_t:s0\"\n"
	for _, tt := range []struct{ name, in, want string }{
		{"Debian's", both + "content = \"u:o:virt_var_lib_t:s0\"\nro_file = \"u:o:container_ro_file_t:s0\"\nsandbox_lxc_process = \"u:r:container_t:s0\"\n",
			"u:r:container_t:s0 u:r:container_t:s0 u:o:container_file_t:s0 u:o:container_ro_file_t:s0"},
		{"Fedora's", "# a comment\n; and one\n\n" + both + "init_process = \"u:r:container_init_t:s0\"\nkvm_process=\"u:r:container_kvm_t:s0\"",
			"u:r:container_t:s0 u:r:container_init_t:s0 u:o:container_file_t:s0 u:o:container_file_t:s0"},
		{"without quotes, without MLS", "process=u:r:p\nfile=u:o:f", "u:r:p u:r:p u:o:f u:o:f"},
		{"the last counts", both + "process = \"u:r:other_t:s0\"", "u:r:other_t:s0 u:r:other_t:s0 u:o:container_file_t:s0 u:o:container_file_t:s0"},
		{"no file", `process = "u:r:p:s0"`, ""},
		{"no process", `file = "u:o:f:s0"`, ""},
		{"nothing", "", ""},
		{"no context", both + `ro_file = "nonsense"`, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := ParseContexts([]byte(tt.in))
			got := strings.Join([]string{l.Process.String(), l.Init.String(), l.File.String(), l.Layer.String()}, " ")
			if (err != nil) != (tt.want == "") || err == nil && got != tt.want {
				t.Errorf("got %s, %v", got, err)
			}
		})
	}
}

func TestParseConfig(t *testing.T) {
	for in, want := range map[string]string{"": "targeted", "SELINUX=enforcing\nSELINUXTYPE=default\n": "default", "#SELINUXTYPE=mls\n": "targeted", "SELINUXTYPE=../x": "targeted", "SELINUXTYPE=": "targeted"} {
		if got := ParseConfig([]byte(in)); got != want {
			t.Errorf("%q names %q, want %q", in, got, want)
		}
	}
}

// Levels have two categories, in order, none of Apart, and differ as long as there are others.
func TestLevel(t *testing.T) {
	seen := map[string]int{}
	for n := range uint64(pairs * (pairs - 1)) {
		seen[Level(n)]++
	}
	if len(seen) != pairs*(pairs-1)/2 {
		t.Errorf("there are %d levels", len(seen))
	}
	for level, times := range seen {
		if times != 2 {
			t.Fatalf("%s comes %d times", level, times)
		}
	}
	if seen[Apart] != 0 || seen["s0:c0,c0"] != 0 {
		t.Error("a container gets categories of others")
	}
	if a, b := Level(0), Level(^uint64(0)); a != "s0:c0,c1" || strings.Count(b, "c") != 2 {
		t.Errorf("got %s, %s", a, b)
	}
}

func TestMayRelabel(t *testing.T) {
	for path, may := range map[string]bool{"/": false, "/usr": false, "/etc": false, "/home": false, "/home/ann": false, "/home/ann/data": true, "/srv/www": true, "/var/lib/x": true} {
		if err := MayRelabel(path, "/home/ann"); (err == nil) != may {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzParseContexts(f *testing.F) {
	f.Add([]byte("process = \"u:r:container_t:s0\"\nfile = \"u:o:container_file_t:s0:c1,c2\"\n"))
	f.Add([]byte("process=\nfile\n=\n\"\""))
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = ParseConfig(text)
		l, err := ParseContexts(text)
		if err != nil {
			return
		}
		for _, c := range []Context{l.Process, l.Init, l.File, l.Layer} {
			again, err := Parse(c.String())
			if err != nil || again != c || strings.ContainsAny(c.String(), "\n\x00") {
				t.Errorf("%q is read as %+v, %v", c, again, err)
			}
		}
	})
}
