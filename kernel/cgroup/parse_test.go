package cgroup

import (
	"strings"
	"testing"
)

const hybridTable = `27 1 254:0 / / rw - ext4 /dev/vda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
`

func TestParseMounts(t *testing.T) {
	show := func(l Layout) string {
		var out []string
		for _, h := range l.All() {
			out = append(out, h.Mount+"["+strings.Join(h.Controllers, "+")+"]"+h.Root)
		}
		return l.Kind() + ": " + strings.Join(out, " ")
	}
	for _, tt := range []struct{ name, table, want string }{
		{"version 2", "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			"v2: /sys/fs/cgroup[]/"},
		{"hybrid, with two controllers in one", hybridTable,
			"hybrid: /sys/fs/cgroup/unified[]/ /sys/fs/cgroup/cpu,cpuacct[cpu+cpuacct]/ /sys/fs/cgroup/memory[memory]/ /sys/fs/cgroup/systemd[name=systemd]/"},
		{"nothing", "27 1 254:0 / / rw - ext4 /dev/vda rw\n", "none: "},
		{"a part of the tree, as in a container", "9 8 0:32 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n", "v1: /sys/fs/cgroup/memory[memory]/docker/ab"},
		{"the first of two mounts", "1 2 0:3 / /a/cgroup rw - cgroup2 x rw\n1 2 0:3 / /b/cgroup rw - cgroup2 x rw\n", "v2: /a/cgroup[]/"},
		{"a mount hides what is below it", hybridTable + "50 23 0:40 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", "v2: /sys/fs/cgroup[]/"},
		{"a space in the path", `1 2 0:3 / /my\040cgroup rw - cgroup2 x rw` + "\n", "v2: /my cgroup[]/"},
		{"half a line", "1 2 0:3 / /cgroup rw - cgroup2\n1 2 cgroup", "none: "},
		{"a file system that calls itself cgroup", "1 2 0:3 / /cgroup rw - fuse.cgroup2 x rw,memory\n", "none: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(parseMounts(tt.table)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestDirOfAPart(t *testing.T) {
	h := Hierarchy{Mount: "/m", Root: "/docker/ab"}
	for in, want := range map[string]string{"/docker/ab/x": "/m/x", "/docker/ab": "/m", "/docker/abc": "/m/docker/abc", "/x": "/m/x"} {
		if got := h.Dir(in); got != want {
			t.Errorf("Dir(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseMembership(t *testing.T) {
	const table = "4:memory:/a:b\n3:cpu,cpuacct:/c\n1:name=systemd:/s\n0::/u (deleted)\n"
	for _, tt := range []struct {
		h    Hierarchy
		want string
	}{
		{Hierarchy{Controllers: []string{"memory"}}, "/a:b"},
		{Hierarchy{Controllers: []string{"cpu", "cpuacct"}}, "/c"},
		{Hierarchy{Controllers: []string{"name=systemd"}}, "/s"},
		{Hierarchy{V2: true}, "/u"},
		{Hierarchy{Controllers: []string{"pids"}}, ""},
	} {
		if got, ok := parseMembership(table, tt.h); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%v: got %q, %v; want %q", tt.h, got, ok, tt.want)
		}
	}
}

func TestParseDeviceRule(t *testing.T) {
	for in, want := range map[string]string{
		"c 1:3 rwm": "c 1:3 rwm", "b *:* m": "b *:* m", "a": "a", "a *:* rwm": "a", "a 1:* r": "a 1:* r", "c 10:*": "c 10:* rwm",
		"": "", "x 1:3 r": "", "c 1 r": "", "c 1:3 rx": "", "c 1:3 r w": "", "c -1:3 r": "", "c 4294967296:0 r": "",
	} {
		r, err := ParseDeviceRule(in, true)
		got := r.String()
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("ParseDeviceRule(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestParseFiles(t *testing.T) {
	if u := parseIOStat("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0\n8:16 rbytes=10\n"); *u != (IOUsage{11, 2, 3, 4}) {
		t.Errorf("parseIOStat = %+v", *u)
	}
	if r, w := parseBlkio("8:0 Read 10\n8:0 Write 5\n8:16 Read 1\nTotal 16\n"); r != 11 || w != 5 {
		t.Errorf("parseBlkio = %d, %d", r, w)
	}
	for in, want := range map[string]float64{"max 100000\n": 0, "150000 100000\n": 1.5, "": 0, "1 0": 0} {
		if got := parseCPUMax(in); got != want {
			t.Errorf("parseCPUMax(%q) = %v, want %v", in, got, want)
		}
	}
	for in, want := range map[string]int64{"max\n": -1, "42\n": 42, "9223372036854771712\n": -1} {
		if got, err := parseNumberFile(in); got != want || err != nil {
			t.Errorf("parseNumberFile(%q) = %d, %v; want %d", in, got, err, want)
		}
	}
}

func TestFamily(t *testing.T) {
	for in, want := range map[string]string{"/kiste/web": "/kiste", "/a.slice/kiste/run-1/kiste/x": "/a.slice/kiste", "/kiste": "", "/": "", "/my-kiste/x": "", "/kisten/x": ""} {
		if got, ok := familyOf(in); ok != (want != "") || ok && got != want {
			t.Errorf("familyOf(%q) = %q, %v; want %q", in, got, ok, want)
		}
	}
	for in, want := range map[string]string{"/kiste/web/main": "/kiste/web", "/kiste/web": "/kiste/web"} {
		if got := Outer(in); got != want {
			t.Errorf("Outer(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestAbandoned(t *testing.T) {
	const gone = "4194303" // above any pid_max in use
	for name, want := range map[string]bool{"run-" + gone: true, "run.2-" + gone: true, "pid-" + gone: true,
		"run-1": false, "web-" + gone: false, "run": false, "run-": false, "run-x": false, "run--5": false, "runner-" + gone: false} {
		if got := abandoned(name, []string{"run", "pid"}); got != want {
			t.Errorf("abandoned(%q) = %v, want %v", name, got, want)
		}
	}
}

// What parses from hostile text must stay within its bounds and not panic.
func FuzzParseMounts(f *testing.F) {
	f.Add(hybridTable)
	f.Add(`1 2 0:3 / /my\04 rw - cgroup2 x rw`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, h := range parseMounts(s).All() {
			if h.Mount == "" || !h.V2 && len(h.Controllers) == 0 {
				t.Errorf("%q gives %+v", s, h)
			}
		}
	})
}

func FuzzCgroupFiles(f *testing.F) {
	f.Add("8:0 rbytes=1 wbytes=2\nmax 5\n0::/a\n")
	f.Fuzz(func(t *testing.T, s string) {
		parseIOStat(s)
		parseBlkio(s)
		parseTable(s)
		parseCPUMax(s)
		parseNumberFile(s)
		numbers(s)
		if p, ok := parseMembership(s, Hierarchy{V2: true}); ok && !strings.HasPrefix(p, "/") {
			t.Errorf("%q gives path %q", s, p)
		}
	})
}

// What CheckPath accepts stays below the root and is accepted again.
func FuzzCheckPath(f *testing.F) {
	f.Add("/kiste/web")
	f.Add("a/../../b")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := CheckPath(s)
		if err != nil {
			return
		}
		if again, err := CheckPath(p); again != p || err != nil {
			t.Errorf("%q -> %q -> %q, %v", s, p, again, err)
		}
		if got := (Hierarchy{Mount: "/m", Root: "/"}).Dir(p); got != "/m"+p {
			t.Errorf("%q leads to %q", s, got)
		}
	})
}

func FuzzParseDeviceRule(f *testing.F) {
	f.Add("c 1:3 rwm")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseDeviceRule(s, true)
		if err != nil {
			return
		}
		if again, err := ParseDeviceRule(r.String(), true); err != nil || again.String() != r.String() {
			t.Errorf("%q -> %q -> %q, %v", s, r, again, err)
		}
	})
}
