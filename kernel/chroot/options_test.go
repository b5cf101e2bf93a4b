package chroot

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		in   string
		want Parsed
	}{
		{"none", "", Parsed{}},
		{"flags and attributes", "ro,nosuid", Parsed{Set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID, Flags: unix.MS_RDONLY | unix.MS_NOSUID}},
		{"a later one wins", "ro,rw", Parsed{Clear: unix.MOUNT_ATTR_RDONLY}},
		{"recursive", "rbind,rro,rnoexec,rsuid", Parsed{Flags: unix.MS_BIND | unix.MS_REC, Bind: true, Rec: true,
			RecSet: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOEXEC, RecClear: unix.MOUNT_ATTR_NOSUID}},
		{"kinds of access time exclude each other", "noatime,strictatime", Parsed{Set: unix.MOUNT_ATTR_STRICTATIME, Clear: unix.MOUNT_ATTR__ATIME,
			Flags: unix.MS_NOATIME | unix.MS_STRICTATIME}},
		{"relatime is zero", "relatime", Parsed{Clear: unix.MOUNT_ATTR__ATIME, Flags: unix.MS_RELATIME}},
		{"recursive relatime is an option and no data", "rrelatime", Parsed{RecClear: unix.MOUNT_ATTR__ATIME}},
		{"directories have their own", "nodiratime", Parsed{Set: unix.MOUNT_ATTR_NODIRATIME, Flags: unix.MS_NODIRATIME}},
		{"propagation", "rslave,shared", Parsed{Propagation: []uint64{unix.MS_SLAVE | unix.MS_REC, unix.MS_SHARED}}},
		{"the file system's", "size=64m,mode=1777,foo", Parsed{Data: []string{"size=64m", "mode=1777", "foo"}}},
		{"id maps", "ridmap", Parsed{IDMap: "ridmap"}},
		{"defaults", "defaults", Parsed{}},
		{"empty words, as Buildah has them", ",ro,", Parsed{Set: unix.MOUNT_ATTR_RDONLY, Flags: unix.MS_RDONLY}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseOptions(strings.Split(tt.in, ","))
			if err != nil || !reflect.DeepEqual(got, tt.want) {
				t.Errorf("ParseOptions(%q) = %+v, %v; want %+v", tt.in, got, err, tt.want)
			}
		})
	}
}

// What is the mount's is not also said to the file system, which may not know
// it: cgroup2 refuses relatime.
func TestSuperIsTheFileSystemsAlone(t *testing.T) {
	p, err := ParseOptions(strings.Split("ro,nosuid,noexec,nodev,relatime,sync,lazytime,bind,silent,nodiratime,strictatime", ","))
	if got := p.Super(); err != nil || !slices.Equal(got, []string{"sync", "lazytime", "ro"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

// No bit may be both set and cleared, but those of the access time.
func FuzzParseOptions(f *testing.F) {
	f.Add("ro,rw,rro,noatime,size=1")
	f.Fuzz(func(t *testing.T, s string) {
		words := strings.Split(s, ",")
		p, err := ParseOptions(words)
		if err != nil || p.Set&p.Clear&^atime != 0 || p.RecSet&p.RecClear&^atime != 0 || len(p.Data) > len(words) {
			t.Errorf("%q: %+v, %v", s, p, err)
		}
	})
}

func TestLookup(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/:/bin/sh\n1000:x:0:0::/:/bin/sh\nbroken\nbig:x:4294967296:0::/:\n"
	const group = "root:x:0:\nstaff:x:50:ann,bob\nadm:x:4:ann\n"
	for _, tt := range []struct {
		who  string
		want IDs
		ok   bool
	}{
		{"ann", IDs{1000, 1001, []uint32{50, 4}}, true},
		{"1000", IDs{1000, 1001, []uint32{50, 4}}, true},
		{"ann:staff", IDs{1000, 50, []uint32{}}, true},
		{"7", IDs{7, 0, []uint32{}}, true},
		{"7:8", IDs{7, 8, []uint32{}}, true},
		{"eve", IDs{}, false},
		{"big", IDs{}, false},
		{"4294967296", IDs{}, false},
		{"4294967295", IDs{}, false},
		{"", IDs{}, false},
		{"ann:eve", IDs{}, false},
		{"+0", IDs{}, false},
		{"0x0", IDs{}, false},
		{"-1", IDs{}, false},
	} {
		got, err := lookup(tt.who, passwd, group)
		if (err == nil) != tt.ok || tt.ok && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("lookup(%q) = %+v, %v; want %+v, %v", tt.who, got, err, tt.want, tt.ok)
		}
	}
}

// Whatever the files say, nobody becomes an id out of range.
func FuzzLookup(f *testing.F) {
	f.Add("ann:staff", "ann:x:1:2::", "staff:x:3:ann")
	f.Fuzz(func(t *testing.T, who, passwd, group string) {
		ids, err := lookup(who, passwd, group)
		if err == nil && (ids.UID < 0 || ids.UID >= 1<<32-1 || ids.GID < 0 || ids.GID >= 1<<32-1 || ids.Groups == nil) {
			t.Errorf("%q: %+v", who, ids)
		}
	})
}

func TestParseBind(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // source, target, options; empty: refused
	}{
		{"/a", "/a /a rbind"},
		{"/a:/b", "/a /b rbind"},
		{"/a:/b:ro,nosuid", "/a /b rbind,rro,nosuid"},
		{"a:b", ""},
		{":/b", ""},
		{"/a:/b:what", ""},
		{"", ""},
	} {
		m, err := ParseBind(tt.in)
		got := ""
		if err == nil {
			got = m.Source + " " + m.Target + " " + strings.Join(m.Options, ",")
		}
		if got != tt.want {
			t.Errorf("ParseBind(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestJoinLayersHidesColons(t *testing.T) {
	if got := joinLayers([]string{`/a:b`, `/c\d`}); got != `/a\:b:/c\\d` {
		t.Errorf("joinLayers: %s", got)
	}
}

// By mount(2), which has all options in one string, a context of SELinux stands in quotes where it has commas.
func TestPageOptionQuotesContexts(t *testing.T) {
	for in, want := range map[string]string{
		"userxattr": "userxattr", "size=64m": "size=64m", "context=u:o:t:s0": "context=u:o:t:s0",
		"context=u:o:t:s0:c1,c2": `context="u:o:t:s0:c1,c2"`, "rootcontext=u:o:t:s0:c1,c2": `rootcontext="u:o:t:s0:c1,c2"`,
	} {
		if got := PageOption(in); got != want {
			t.Errorf("%s is written %s, want %s", in, got, want)
		}
	}
}
