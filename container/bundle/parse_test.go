package bundle

import (
	"fmt"
	"net/netip"
	"path"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// a case is what a parser makes of a text, printed, or the error's text.
type parserCase struct{ name, in, want, err string }

func checkCases(t *testing.T, cases []parserCase, parse func(string) (string, error)) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(tt.in)
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("parse(%q) = %s, %v; want the error %q", tt.in, got, err, tt.err)
			case tt.err == "" && (err != nil || got != tt.want):
				t.Errorf("parse(%q) = %s, %v; want %s", tt.in, got, err, tt.want)
			}
		})
	}
}

func show(m Mount) string {
	s := fmt.Sprintf("%s %s on %s", m.Type, m.Source, m.Target)
	for _, o := range []struct {
		on   bool
		word string
	}{
		{m.ReadOnly, "ro"}, {m.NonRecursive, "nonrecursive"}, {m.WritableBelow, "writable-below"}, {m.ForceReadOnly, "force-ro"},
		{m.CreateSource, "create"}, {m.NoCopy, "nocopy"}, {m.NoIDMap, "noidmap"}, {m.Relabel != "", m.Relabel}, {m.Propagation != "", m.Propagation},
		{m.Subpath != "", "subpath=" + m.Subpath}, {m.TmpfsSize != 0, fmt.Sprint("size=", m.TmpfsSize)}, {m.TmpfsMode != 0, fmt.Sprintf("mode=%o", m.TmpfsMode)},
		{m.Driver != "", "driver=" + m.Driver}, {len(m.DriverOptions) > 0, fmt.Sprint(m.DriverOptions)}, {len(m.Labels) > 0, fmt.Sprint(m.Labels)},
		{len(m.TmpfsOptions) > 0, fmt.Sprint(m.TmpfsOptions)},
	} {
		if o.on {
			s += " " + o.word
		}
	}
	return s
}

func TestParseVolume(t *testing.T) {
	checkCases(t, []parserCase{
		{"an anonymous volume", "/data", "volume  on /data", ""},
		{"a named one", "db:/data", "volume db on /data", ""},
		{"a bind", "/src:/dst", "bind /src on /dst create", ""},
		{"a bind is cleaned", "/src/../a/:/dst//x/", "bind /a on /dst/x create", ""},
		{"relative to here", "./a:/dst", "bind /home/a on /dst create", ""},
		{"here", ".:/dst", "bind /home on /dst create", ""},
		{"above", "..:/dst", "bind / on /dst create", ""},
		{"read-only", "/a:/b:ro", "bind /a on /b ro create", ""},
		{"several options", "/a:/b:ro,Z,rshared,delegated", "bind /a on /b ro create Z rshared", ""},
		{"without id mapping", "/a:/b:noidmap", "bind /a on /b create noidmap", ""},
		{"nocopy of a volume", "v1:/b:nocopy", "volume v1 on /b nocopy", ""},
		{"empty", "", "", "invalid empty volume spec"},
		{"empty source", ":/b", "", "empty section between colons"},
		{"empty options", "/a:/b:", "", "empty section between colons"},
		{"too many", "/a:/b:ro:rw", "", "too many colons"},
		{"both ro and rw", "/a:/b:ro,rw", "", "invalid mode: ro,rw"},
		{"an unknown option", "/a:/b:bogus", "", "invalid mode: bogus"},
		{"a target that is a mode", "/a:ro", "", "invalid volume specification: '/a:ro'"},
		{"on /", "/a:/", "", "destination can't be '/'"},
		{"on / by dots", "/a:/..", "", "destination can't be '/'"},
		{"a relative target", "/a:b", "", "mount path must be absolute"},
		{"a relative source without a dot", "a/b:/c", "", "includes invalid characters for a local volume name"},
		{"a home is the shell's business", "~/a:/c", "", "includes invalid characters"},
		{"propagation of a volume", "v1:/b:rshared", "", "propagation is for host directories"},
		{"nocopy of a bind", "/a:/b:nocopy", "", "nocopy is for volumes"},
		{"on /proc", "/a:/proc", "", `"/proc" can only be the host's /proc`},
		{"the host's /proc", "/proc:/proc", "bind /proc on /proc create", ""},
		{"in /proc", "/a:/proc/sys/kernel", "", "inside /proc"},
		{"what lxcfs replaces", "/a:/proc/meminfo", "bind /a on /proc/meminfo create", ""},
		{"a zero byte", "/a\x00:/b", "", "zero byte"},
	}, func(s string) (string, error) { m, err := ParseVolume(s, "/home"); return show(m), err })
}

func TestParseMount(t *testing.T) {
	checkCases(t, []parserCase{
		{"a bind", "type=bind,source=/a,target=/b", "bind /a on /b", ""},
		{"other names of keys", "type=bind,src=/a,dst=/b,ro", "bind /a on /b ro", ""},
		{"a volume is the default", "src=vol,destination=/b", "volume vol on /b", ""},
		{"keys in any case", "Type=BIND,Source=/a,TARGET=/b,ReadOnly=1", "bind /a on /b ro", ""},
		{"quoted", `type=bind,"source=/a,b",target=/c`, "bind /a,b on /c", ""},
		{"a quote in quotes", `type=bind,"source=/a""b",target=/c`, `bind /a"b on /c`, ""},
		{"relative to here", "type=bind,source=./x,target=/b", "bind /home/x on /b", ""},
		{"propagation", "type=bind,src=/a,dst=/b,bind-propagation=rslave", "bind /a on /b rslave", ""},
		{"not recursive", "type=bind,src=/a,dst=/b,bind-recursive=disabled", "bind /a on /b nonrecursive", ""},
		{"writable below", "type=bind,src=/a,dst=/b,ro,bind-recursive=writable", "bind /a on /b ro writable-below", ""},
		{"read-only below", "type=bind,src=/a,dst=/b,ro,bind-recursive=readonly", "bind /a on /b ro force-ro", ""},
		{"make the source", "type=bind,src=/a,dst=/b,bind-create-src", "bind /a on /b create", ""},
		{"a volume with everything", "src=vol,dst=/b,volume-nocopy,volume-driver=local,volume-opt=type=nfs,volume-opt=o=x,volume-label=a=b,volume-subpath=c/d",
			"volume vol on /b nocopy subpath=c/d driver=local map[o:x type:nfs] map[a:b]", ""},
		{"a tmpfs", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770", "tmpfs  on /t size=1048576 mode=1770", ""},
		{"an image", "type=image,src=debian,dst=/i,image-subpath=usr", "image debian on /i subpath=usr", ""},
		{"empty", "", "", "value is empty"},
		{"no value", "type=bind,source=/a,target", "", "invalid field 'target' must be a key=value pair"},
		{"an empty value", "type=bind,source=,target=/b", "", "invalid value for 'source': value is empty"},
		{"blanks", "type=bind, source=/a,target=/b", "", "option should not have whitespace"},
		{"a blank value", "type=bind,source= /a,target=/b", "", "value should not have whitespace"},
		{"an unknown key", "type=bind,source=/a,target=/b,bogus=1", "", "unknown option 'bogus' in 'bogus=1'"},
		{"an unknown type", "type=bogus,target=/b", "", `invalid mount config for type "bogus": mount type unknown`},
		{"no target", "type=bind,source=/a", "", "target is required"},
		{"no source", "type=bind,target=/b", "", "field Source must not be empty"},
		{"a tmpfs with a source", "type=tmpfs,source=/a,target=/b", "", "field Source must not be specified"},
		{"another type's option", "type=tmpfs,target=/b,bind-propagation=shared", "", "cannot mix 'bind-*' options with mount type 'tmpfs'"},
		{"a bad propagation", "type=bind,source=/a,target=/b,bind-propagation=bogus", "", "invalid propagation mode: bogus"},
		{"a bad bool", "type=bind,source=/a,target=/b,ro=maybe", "", "invalid boolean value"},
		{"a bad size", "type=tmpfs,target=/b,tmpfs-size=x", "", "invalid value for tmpfs-size: x"},
		{"a bad mode", "type=tmpfs,target=/b,tmpfs-mode=999", "", "invalid value for tmpfs-mode: 999"},
		{"a subpath that leads out", "src=vol,target=/b,volume-subpath=a/../../b", "", "relative path within the volume"},
		{"a subpath of nothing", "target=/b,volume-subpath=a", "", "anonymous volumes"},
		{"an open quote", `type=bind,"source=/a`, "", "parse error"},
		{"a bare quote", `type=bind,source=/a"b,target=/c`, "", "bare \""},
		{"deprecated", "type=bind,source=/a,target=/b,bind-nonrecursive", "", "bind-nonrecursive is deprecated"},
		{"both recursions", "type=bind,source=/a,target=/b,bind-recursive=writable,bind-recursive=readonly", "", "mount options conflict"},
	}, func(s string) (string, error) { m, err := ParseMount(s, "/home"); return show(m), err })
}

func TestParseTmpfs(t *testing.T) {
	checkCases(t, []parserCase{
		{"a path", "/run", "tmpfs  on /run", ""},
		{"options", "/run:rw,exec,size=64k,mode=755,uid=5", "tmpfs  on /run [rw exec size=64k mode=755 uid=5]", ""},
		{"an unknown option", "/run:bogus", "", `invalid tmpfs option ["bogus"]`},
		{"an option that is another file system's", "/run:lowerdir=/etc", "", "invalid tmpfs option"},
		{"on /", "/", "", "destination can't be '/'"},
		{"in /proc", "/proc/sys", "", "inside /proc"},
		{"relative", "run", "", "must be absolute"},
	}, func(s string) (string, error) { m, err := ParseTmpfs(s); return show(m), err })
}

func TestMergeOptions(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"exec undoes noexec", "noexec nosuid exec", "nosuid exec"},
		{"the last size", "size=1 mode=1 size=2", "mode=1 size=2"},
		{"the last propagation", "rprivate shared", "shared"},
		{"the same twice", "ro nodev ro", "nodev ro"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(mergeOptions(strings.Fields(tt.in)), " "); got != tt.want {
				t.Errorf("mergeOptions(%s) = %s; want %s", tt.in, got, tt.want)
			}
		})
	}
}

func TestParseDevice(t *testing.T) {
	checkCases(t, []parserCase{
		{"one path", "/dev/snd", "{/dev/snd /dev/snd rwm}", ""},
		{"with permissions", "/dev/snd:rw", "{/dev/snd /dev/snd rw}", ""},
		{"elsewhere", "/dev/snd:/something", "{/dev/snd /something rwm}", ""},
		{"elsewhere with permissions", "/dev/snd:/something:ro", "", "bad mode specified: ro"},
		{"all three", "/dev/snd:/something:mr", "{/dev/snd /something mr}", ""},
		{"empty", "", "", "bad format for path: "},
		{"relative", "dev/snd", "", "dev/snd is not an absolute path"},
		{"a relative target", "/dev/snd:something", "", "something is not an absolute path"},
		{"twice the same", "/dev/snd:/a:rr", "", "bad mode specified: rr"},
		{"too many", "/dev/a:/dev/b:rw:x", "", "bad format for path"},
	}, func(s string) (string, error) { d, err := ParseDevice(s); return fmt.Sprint(d), err })
}

func TestParseDeviceRule(t *testing.T) {
	checkCases(t, []parserCase{
		{"a range", "c 13:* rwm", "c 13:-1 rwm", ""},
		{"all", "a *:* r", "a -1:-1 r", ""},
		{"no type", "13:1 rwm", "", "invalid device cgroup format '13:1 rwm'"},
		{"a bad type", "x 1:1 rwm", "", "invalid device cgroup format"},
		{"a bad number", "c 1:x rwm", "", "invalid device cgroup format"},
		{"a negative number", "c -1:1 rwm", "", "invalid device cgroup format"},
		{"too large", "c 1:99999999999 rwm", "", "invalid device cgroup format"},
	}, func(s string) (string, error) {
		r, err := ParseDeviceRule(s)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%s %d:%d %s", r.Type, *r.Major, *r.Minor, r.Access), nil
	})
}

func TestParseSize(t *testing.T) {
	checkCases(t, []parserCase{
		{"bytes", "32", "32", ""}, {"b", "32b", "32", ""}, {"K", "32K", "32768", ""}, {"kb", "32kb", "32768", ""},
		{"KiB", "32KiB", "32768", ""}, {"Mb", "32Mb", "33554432", ""}, {"a fraction", "1.5g", "1610612736", ""},
		{"p", "1p", "1125899906842624", ""}, {"a blank", "32 MB", "33554432", ""}, {"unlimited", "-1", "-1", ""},
		{"empty", "", "", "invalid size: ''"}, {"no number", "m", "", "invalid size"}, {"negative", "-5", "", "invalid size"},
		{"no unit", "5x", "", "invalid size"}, {"two units", "5mm", "", "invalid size"}, {"hexadecimal", "0x10", "", "invalid size"},
		{"too large", "9999999999t", "", "invalid size"}, {"infinite", "inf", "", "invalid size"},
	}, func(s string) (string, error) { v, err := ParseSize(s); return fmt.Sprint(v), err })
}

func TestParseCPUs(t *testing.T) {
	checkCases(t, []parserCase{
		{"whole", "2", "2000000000", ""}, {"half", "0.5", "500000000", ""}, {"no zero", ".25", "250000000", ""}, {"the least", "0.000000001", "1", ""},
		{"too precise", "0.0000000001", "", "value is too precise"}, {"empty", "", "", "rational number"}, {"a dot", ".", "", "rational number"},
		{"negative", "-1", "", "rational number"}, {"words", "two", "", "rational number"}, {"huge", "99999999999", "", "rational number"},
	}, func(s string) (string, error) { v, err := ParseCPUs(s); return fmt.Sprint(v), err })
}

func TestParseUlimit(t *testing.T) {
	checkCases(t, []parserCase{
		{"one", "nofile=512", "{RLIMIT_NOFILE 512 512}", ""},
		{"two", "nofile=512:1024", "{RLIMIT_NOFILE 1024 512}", ""},
		{"unlimited", "core=-1", "{RLIMIT_CORE 18446744073709551615 18446744073709551615}", ""},
		{"unlimited hard", "core=0:-1", "{RLIMIT_CORE 18446744073709551615 0}", ""},
		{"no value", "nofile", "", "invalid ulimit argument: nofile"},
		{"an unknown name", "bogus=1", "", "invalid ulimit type: bogus"},
		{"soft above hard", "nofile=2:1", "", "soft limit must be less than or equal to hard limit: 2 > 1"},
		{"soft unlimited", "nofile=-1:1", "", "soft limit must be less than or equal"},
		{"three", "nofile=1:2:3", "", "too many limit value arguments"},
		{"no number", "nofile=x", "", "invalid ulimit value"},
		{"below -1", "nofile=-2", "", "invalid ulimit value"},
	}, func(s string) (string, error) { v, err := ParseUlimit(s); return fmt.Sprint(v), err })
}

func TestParseThrottle(t *testing.T) {
	checkCases(t, []parserCase{
		{"bytes", "/dev/sda:1mb", "{/dev/sda 1048576}", ""},
		{"no colon", "/dev/sda", "", "bad format: /dev/sda"},
		{"no device", "sda:1", "", "bad format for device path: sda:1"},
		{"negative", "/dev/sda:-1", "", "Number must be a positive integer. Unit is optional"},
		{"no number", "/dev/sda:x", "", "invalid rate for device: /dev/sda:x"},
	}, func(s string) (string, error) { v, err := ParseThrottle(s, true); return fmt.Sprint(v), err })
	checkCases(t, []parserCase{
		{"a count", "/dev/sda:100", "{/dev/sda 100}", ""},
		{"no unit", "/dev/sda:1k", "", "invalid rate for device"},
	}, func(s string) (string, error) { v, err := ParseThrottle(s, false); return fmt.Sprint(v), err })
	checkCases(t, []parserCase{
		{"a weight", "/dev/sda:100", "{/dev/sda 100}", ""},
		{"a small one", "/dev/sda:9", "", "invalid weight for device: /dev/sda:9"},
		{"a large one", "/dev/sda:1001", "", "invalid weight for device"},
	}, func(s string) (string, error) { v, err := ParseWeightDevice(s); return fmt.Sprint(v), err })
}

func known(name string) (string, bool) {
	return "here", name == "KNOWN"
}

func TestParseEnv(t *testing.T) {
	checkCases(t, []parserCase{
		{"a pair", "A=b=c", "A=b=c", ""}, {"an empty value", "A=", "A=", ""}, {"from here", "KNOWN", "KNOWN=here", ""},
		{"not here", "OTHER", "OTHER", ""}, {"a newline in the value", "A=b\nc", "A=b\nc", ""}, {"any name", "some space=1", "some space=1", ""},
		{"no name", "=b", "", "invalid environment variable: =b"}, {"empty", "", "", "invalid environment variable"},
		{"a zero byte", "A=\x00", "", "invalid environment variable"},
	}, func(s string) (string, error) { return ParseEnv(s, known) })
}

func TestParseEnvFile(t *testing.T) {
	checkCases(t, []parserCase{
		{"as Docker reads it", "# comment\n\nA=b\n  B=c d \nC=\"quoted\"\nKNOWN\nOTHER\nD=\r\n", `["A=b" "B=c d " "C=\"quoted\"" "KNOWN=here" "D="]`, ""},
		{"a byte order mark", "\uFEFFA=b", `["A=b"]`, ""},
		{"a hash in a value", "A=b # c", `["A=b # c"]`, ""},
		{"empty", "", `[]`, ""},
		{"no name", "=b\n", "", "no variable name on line '=b'"},
		{"blanks in a name", "A B=c\n", "", "variable 'A B' contains whitespaces"},
		{"no UTF-8", "A=b\nB=\xff\n", "", "invalid utf8 bytes at line 2: [66 61 255]"},
		{"a zero byte", "A=\x00\n", "", "zero byte"},
		{"a very long line", "A=" + strings.Repeat("x", maxLine), "", "line 1 is too long"},
	}, func(s string) (string, error) {
		v, err := ParseEnvFile([]byte(s), known)
		return fmt.Sprintf("%q", v), err
	})
}

func TestParseHost(t *testing.T) {
	checkCases(t, []parserCase{
		{"a colon", "db:10.0.0.1", "{db 10.0.0.1}", ""}, {"equals", "db=10.0.0.1", "{db 10.0.0.1}", ""},
		{"v6", "db:::1", "{db ::1}", ""}, {"v6 in brackets", "db:[::1]", "{db ::1}", ""}, {"the gateway", "db:host-gateway", "{db host-gateway}", ""},
		{"no address", "db", "", `bad format for add-host: "db"`}, {"a bad address", "db:300.0.0.1", "", `invalid IP address in add-host: "300.0.0.1"`},
		{"a second line", "db\n1.1.1.1 x:10.0.0.1", "", "bad format for add-host"}, {"no name", ":1.1.1.1", "", "bad format for add-host"},
	}, func(s string) (string, error) { v, err := ParseHost(s); return fmt.Sprint(v), err })
}

// The standard library knows what an address is.
func FuzzIsAddress(f *testing.F) {
	for _, s := range []string{"1.2.3.4", "01.2.3.4", "::", "::1", "1::", "fe80::1%eth0", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "1::2::3", ":::", "1:", ":1", "::%", "1:2:3:4:5:6:1.2.3.4", "+1::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, err := netip.ParseAddr(s)
		if got, want := isAddress(s), err == nil; got != want {
			t.Errorf("isAddress(%q) = %t; want %t", s, got, want)
		}
	})
}

func TestParseSysctl(t *testing.T) {
	checkCases(t, []parserCase{
		{"of the network", "net.ipv4.ip_forward=1", "net.ipv4.ip_forward 1", ""},
		{"with slashes", "net/ipv4/ip_forward=1", "net.ipv4.ip_forward 1", ""},
		{"of IPC", "kernel.shmmax=1", "kernel.shmmax 1", ""},
		{"two numbers", "net.ipv4.ping_group_range=0 1000", "net.ipv4.ping_group_range 0 1000", ""},
		{"the host's", "vm.overcommit_memory=1", "", "sysctl 'vm.overcommit_memory=1' is not allowed"},
		{"the host's, another", "kernel.core_pattern=x", "", "is not allowed"},
		{"no value", "net.ipv4.ip_forward", "", "is not allowed"},
		{"up", "net../kernel/core_pattern=x", "", "is not allowed"},
		{"a second sysctl (CVE-2022-0811)", "kernel.shm_rmid_forced=1+kernel.core_pattern=|/bin/sh", "", "no sysctl takes"},
		{"a second line", "net.ipv4.ip_forward=1\nkernel.core_pattern=x", "", "no sysctl takes"},
	}, func(s string) (string, error) { n, v, err := ParseSysctl(s); return n + " " + v, err })
}

func TestParseSecurity(t *testing.T) {
	checkCases(t, []parserCase{
		{"no new privileges", "no-new-privileges", "{Seccomp: NoNewPrivileges:true SystemPaths:false NoLandlock:false LogDenials:false AppArmor: Label:[]}", ""},
		{"the same with a value", "no-new-privileges:true", "{Seccomp: NoNewPrivileges:true SystemPaths:false NoLandlock:false LogDenials:false AppArmor: Label:[]}", ""},
		{"a profile", "seccomp=/a.json", "{Seccomp:/a.json NoNewPrivileges:false SystemPaths:false NoLandlock:false LogDenials:false AppArmor: Label:[]}", ""},
		{"the old form", "seccomp:unconfined", "{Seccomp:unconfined NoNewPrivileges:false SystemPaths:false NoLandlock:false LogDenials:false AppArmor: Label:[]}", ""},
		{"system paths", "systempaths=unconfined", "{Seccomp: NoNewPrivileges:false SystemPaths:true NoLandlock:false LogDenials:false AppArmor: Label:[]}", ""},
		{"a label", "label=type:x", "{Seccomp: NoNewPrivileges:false SystemPaths:false NoLandlock:false LogDenials:false AppArmor: Label:[type:x]}", ""},
		{"landlock", "landlock=off", "{Seccomp: NoNewPrivileges:false SystemPaths:false NoLandlock:true LogDenials:false AppArmor: Label:[]}", ""},
		{"denials", "denials=log", "{Seccomp: NoNewPrivileges:false SystemPaths:false NoLandlock:false LogDenials:true AppArmor: Label:[]}", ""},
		{"denials, otherwise", "denials=loud", "", `invalid --security-opt: "denials=loud"`},
		{"unknown", "bogus=1", "", `invalid --security-opt 1: "bogus=1"`},
		{"no value", "seccomp", "", `invalid --security-opt: "seccomp"`},
	}, func(s string) (string, error) {
		var v Security
		err := ParseSecurity(&v, s)
		return fmt.Sprintf("%+v", v), err
	})
}

func TestParseNamespace(t *testing.T) {
	for _, tt := range []struct{ kind, in, want, err string }{
		{"network", "none", "none", ""}, {"network", "host", "host", ""}, {"network", "container:web", "container:web", ""},
		{"network", "ns:/run/netns/a", "ns:/run/netns/a", ""}, {"network", "default", "", ""},
		{"network", "mynet", "", `there is no network "mynet" here`}, {"network", "ns:relative", "", "there is no network"},
		{"pid", "host", "host", ""}, {"pid", "bogus", "", "--pid: invalid PID mode"}, {"pid", "container:", "", "--pid: invalid PID mode"},
		{"uts", "host", "host", ""}, {"uts", "container:a", "", "--uts: invalid UTS mode"},
		{"ipc", "shareable", "shareable", ""}, {"ipc", "none", "none", ""},
		{"userns", "host", "host", ""}, {"userns", "auto", "private", ""}, {"userns", "keep-id", "keep-id", ""}, {"userns", "bogus", "", "--userns: invalid USER mode"},
		{"cgroupns", "private", "private", ""}, {"cgroupns", "bogus", "", "--cgroupns: invalid CGROUP mode"},
	} {
		t.Run(tt.kind+" "+tt.in, func(t *testing.T) {
			got, err := ParseNamespace(tt.kind, tt.in)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v, %v; want the error %q", got, err, tt.err)
				}
			} else if err != nil || got.String() != tt.want {
				t.Errorf("got %v, %v; want %s", got, err, tt.want)
			}
		})
	}
}

func TestParseSignal(t *testing.T) {
	checkCases(t, []parserCase{
		{"a name", "SIGTERM", "SIGTERM 15", ""}, {"a short one", "kill", "SIGKILL 9", ""}, {"a number", "3", "SIGQUIT 3", ""},
		{"systemd's", "SIGRTMIN+3", "SIGRTMIN+3 37", ""}, {"its number", "37", "SIGRTMIN+3 37", ""}, {"the last", "RTMAX", "SIGRTMIN+30 64", ""},
		{"from the end", "RTMAX-1", "SIGRTMIN+29 63", ""}, {"winch", "WINCH", "SIGWINCH 28", ""}, {"sys", "31", "SIGSYS 31", ""},
		{"zero", "0", "", "invalid signal: 0"}, {"too large", "65", "", "invalid signal"}, {"bogus", "BOGUS", "", "invalid signal: BOGUS"},
		{"past the end", "RTMIN+31", "", "invalid signal"}, {"empty", "", "", "invalid signal"}, {"a minus", "RTMIN+-1", "", "invalid signal"},
	}, func(s string) (string, error) {
		name, err := ParseSignal(s)
		if err != nil {
			return "", err
		}
		n, err := SignalNumber(s)
		return fmt.Sprint(name, " ", n), err
	})
}

func TestSmallParsers(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		ok   bool
	}{
		{"a cpu list", CheckCPUSet("0-3,7"), true}, {"a bad one", CheckCPUSet("3-0"), false}, {"words", CheckCPUSet("a"), false}, {"empty", CheckCPUSet(""), false},
		{"a name", CheckName("a_b.c-1"), true}, {"one letter", CheckName("a"), false}, {"a slash", CheckName("a/b"), false}, {"dots", CheckName("../x"), false},
		{"a platform", ParsePlatform("linux/arm/v7"), true}, {"an empty part", ParsePlatform("linux/"), false},
		{"an address", CheckDNS("1.1.1.1"), true}, {"no address", CheckDNS("x"), false}, {"a zone with a second line", CheckDNS("fe80::1%a\nsearch x"), false},
		{"a word", CheckLine("ndots:1"), true}, {"two lines", CheckLine("a\nb"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if (tt.err == nil) != tt.ok {
				t.Errorf("got %v; want it taken: %t", tt.err, tt.ok)
			}
		})
	}
}

// What ParseVolume and ParseMount accept stays inside the container's root and
// has a source of the right form.
func FuzzMounts(f *testing.F) {
	f.Add("/a:/b:ro,Z")
	f.Add(`type=bind,"source=/a,b",target=/c,ro`)
	f.Add("/run:size=1m,exec")
	f.Fuzz(func(t *testing.T, s string) {
		var all []Mount
		if m, err := ParseVolume(s, "/home"); err == nil {
			all = append(all, m)
		}
		if m, err := ParseMount(s, "/home"); err == nil {
			all = append(all, m)
		}
		if m, err := ParseTmpfs(s); err == nil {
			all = append(all, m)
		}
		for _, m := range all {
			if !path.IsAbs(m.Target) || path.Clean(m.Target) != m.Target || m.Target == "/" || strings.Contains(m.Source, "\x00") ||
				m.Type == "bind" && !path.IsAbs(m.Source) || m.Type == "volume" && m.Source != "" && !validName(m.Source) {
				t.Errorf("%q gave %+v", s, m)
			}
		}
	})
}

func FuzzOptions(f *testing.F) {
	for _, s := range []string{"/dev/snd:/a:rw", "c 1:* rwm", "nofile=1:2", "/dev/sda:1mb", "1.5", "A=b", "net.ipv4.x=1", "container:a", "RTMIN+3", "0-3", "db:::1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := ParseDevice(s); err == nil && (!path.IsAbs(d.Source) || !path.IsAbs(d.Target) || !deviceMode(d.Permissions)) {
			t.Errorf("device %q: %+v", s, d)
		}
		if r, err := ParseUlimit(s); err == nil && r.Soft > r.Hard {
			t.Errorf("ulimit %q: %+v", s, r)
		}
		if v, err := ParseSize(s); err == nil && v < -1 {
			t.Errorf("size %q: %d", s, v)
		}
		if v, err := ParseCPUs(s); err == nil && v < 0 {
			t.Errorf("cpus %q: %d", s, v)
		}
		if n, v, err := ParseSysctl(s); err == nil && (sysctlSpace(n) == "" || strings.ContainsAny(v, "\n+")) {
			t.Errorf("sysctl %q: %q %q", s, n, v)
		}
		if n, err := SignalNumber(s); err == nil && (n < 1 || n > 64) {
			t.Errorf("signal %q: %d", s, n)
		}
		if h, err := ParseHost(s); err == nil && strings.ContainsAny(h.Name+h.IP, "\n ") {
			t.Errorf("host %q: %+v", s, h)
		}
		_, _ = ParseDeviceRule(s)
		_, _ = ParseThrottle(s, true)
		_, _ = ParseWeightDevice(s)
		_, _ = ParseNamespace("userns", s)
		_ = ParseSecurity(&Security{}, s)
		_ = CheckCPUSet(s)
	})
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=b\n# c\nKNOWN\n")
	f.Fuzz(func(t *testing.T, s string) {
		pairs, err := ParseEnvFile([]byte(s), known)
		if err != nil {
			return
		}
		for _, p := range pairs {
			if key, _, ok := strings.Cut(p, "="); !ok || key == "" || strings.ContainsAny(p, "\n\x00") {
				t.Errorf("%q gave %q", s, p)
			}
		}
	})
}

func TestResolveUser(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\n" +
		"1000:x:0:0:a number as a name (CVE-2016-3697):/:/bin/sh\n" +
		"ann:x:1001:100:Ann:/home/ann:/bin/sh\n" +
		"big:x:4294967296:0::/:\n" +
		"broken\n:::\n" +
		"ben:x:1002:100\n" +
		"0x0:x:77:77::/:/bin/sh\n"
	const group = "root:x:0:\nusers:x:100:\nwheel:x:10:root,ann\nvideo:x:44:ben,ann\n2000:x:0:\nbig:x:4294967296:\nannex:x:50:annette\n"
	for _, tt := range []struct {
		name, spec string
		extra      []string
		want, err  string
	}{
		{"nobody said is root", "", nil, "0:0 [0 10] /root", ""},
		{"a name", "ann", nil, "1001:100 [100 10 44] /home/ann", ""},
		{"a known number", "1001", nil, "1001:100 [100 10 44] /home/ann", ""},
		{"an unknown number", "5000", nil, "5000:0 [0] /", ""},
		{"a number is no name (CVE-2016-3697)", "1000", nil, "1000:0 [0] /", ""},
		{"a group", "ann:wheel", nil, "1001:10 [10] /home/ann", ""},
		{"a group's number", "ann:5", nil, "1001:5 [5] /home/ann", ""},
		{"a group's number is no name", "ann:2000", nil, "1001:2000 [2000] /home/ann", ""},
		{"only a group", ":100", nil, "0:100 [100] /root", ""},
		{"leading zeros", "01001", nil, "1001:100 [100 10 44] /home/ann", ""},
		{"more groups", "5000", []string{"video", "7", "7"}, "5000:0 [0 44 7] /", ""},
		{"no home", "ben", nil, "1002:100 [100 44] /", ""},
		{"an odd name is a name", "0x0", nil, "77:77 [77] /", ""},
		{"an empty group", "ann:", nil, "1001:100 [100 10 44] /home/ann", ""},
		{"unknown", "bogus", nil, "", "no matching entries in passwd file"},
		{"an unknown group", "ann:bogus", nil, "", "no matching entries in group file"},
		{"an unknown extra group", "ann", []string{"bogus"}, "", "no matching entries in group file"},
		{"2^32 (CVE-2024-40635)", "4294967296", nil, "", "uids and gids must be in range 0-2147483647"},
		{"2^31", "2147483648", nil, "", "range"},
		{"2^64", "18446744073709551616", nil, "", "range"},
		{"2^32 as group", "0:4294967296", nil, "", "range"},
		{"a plus", "+0", nil, "", "begins with a sign"},
		{"a minus", "-1", nil, "", "begins with a sign"},
		{"an entry out of range is none", "big", nil, "", "no matching entries"},
		{"a group out of range is none", "0:big", nil, "", "no matching entries"},
		{"two colons", "a:b:c", nil, "", "want USER[:GROUP]"},
		{"a colon", ":", nil, "", "want USER[:GROUP]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, err := ResolveUser(tt.spec, []byte(passwd), []byte(group), tt.extra)
			got := fmt.Sprintf("%d:%d %d %s", u.UID, u.GID, u.Additional, u.Home)
			switch {
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("ResolveUser(%q) = %s, %v; want the error %q", tt.spec, got, err, tt.err)
			case tt.err == "" && (err != nil || got != tt.want):
				t.Errorf("ResolveUser(%q) = %s, %v; want %s", tt.spec, got, err, tt.want)
			}
		})
	}
}

// A huge file is refused and not searched (CVE-2026-47262).
func TestResolveUserRefusesAHugeFile(t *testing.T) {
	if _, err := ResolveUser("ann", make([]byte, MaxAccounts+1), nil, nil); err == nil {
		t.Error("a passwd of more than MaxAccounts bytes was read")
	}
}

func FuzzResolveUser(f *testing.F) {
	f.Add("ann:wheel", "ann:x:1:1::/:", "wheel:x:10:ann")
	f.Fuzz(func(t *testing.T, spec, passwd, group string) {
		u, err := ResolveUser(spec, []byte(passwd), []byte(group), nil)
		if err == nil && (u.UID > maxID || u.GID > maxID || len(u.Additional) == 0 || u.Additional[0] != u.GID || u.Home == "" || strings.Contains(u.Home, "\n")) {
			t.Errorf("ResolveUser(%q, %q, %q) = %+v", spec, passwd, group, u)
		}
	})
}

func TestKeepID(t *testing.T) {
	for _, tt := range []struct {
		name string
		maps []specs.LinuxIDMapping
		id   uint32
		want string
	}{
		{"a whole range", []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 65536}}, 1000,
			"1000=1000+1 0=100000+1000 1001=101000+64536"},
		{"one id", []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}}, 1000, "1000=1000+1"},
		{"a small range", []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1000, Size: 1}, {ContainerID: 1, HostID: 100000, Size: 10}}, 1000, "1000=1000+1 0=100000+10"},
		{"id 0", []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 10}}, 0, "0=0+1 1=100000+10"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, m := range keepID(tt.maps, tt.id) {
				got = append(got, fmt.Sprintf("%d=%d+%d", m.ContainerID, m.HostID, m.Size))
			}
			if s := strings.Join(got, " "); s != tt.want {
				t.Errorf("got %s; want %s", s, tt.want)
			}
		})
	}
}

func TestTweakCapabilities(t *testing.T) {
	for _, tt := range []struct {
		name      string
		add, drop []string
		has, hasn []string
		n         int
		err       string
	}{
		{"the default", nil, nil, []string{"CAP_CHOWN", "CAP_AUDIT_WRITE"}, []string{"CAP_SYS_ADMIN"}, 14, ""},
		{"one more, in any form", []string{"net_admin", "CAP_SYS_TIME", "Cap_Chown"}, nil, []string{"CAP_NET_ADMIN", "CAP_SYS_TIME"}, nil, 16, ""},
		{"one less", nil, []string{"net_raw"}, nil, []string{"CAP_NET_RAW"}, 13, ""},
		{"all but one", []string{"ALL"}, []string{"SYS_ADMIN"}, []string{"CAP_BPF"}, []string{"CAP_SYS_ADMIN"}, 40, ""},
		{"none but one", []string{"chown"}, []string{"all"}, []string{"CAP_CHOWN"}, nil, 1, ""},
		{"none", nil, []string{"ALL"}, nil, []string{"CAP_CHOWN"}, 0, ""},
		{"unknown", []string{"bogus"}, nil, nil, nil, 0, `unknown capability: "CAP_BOGUS"`},
		{"unknown to drop", nil, []string{"bogus"}, nil, nil, 0, `unknown capability: "CAP_BOGUS"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tweakCapabilities(&Wishes{CapAdd: tt.add, CapDrop: tt.drop}, allCapabilities())
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v; want %s", err, tt.err)
				}
				return
			}
			bad := slices.ContainsFunc(tt.has, func(c string) bool { return !slices.Contains(got, c) }) ||
				slices.ContainsFunc(tt.hasn, func(c string) bool { return slices.Contains(got, c) })
			if err != nil || bad || len(got) != tt.n {
				t.Errorf("got %v (%d), %v", got, len(got), err)
			}
		})
	}
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv(MergeEnv([]string{"PATH=a", "HOSTNAME=h"}, []string{"X=1", "PATH=b"}), []string{"X", "Y=2", "HOSTNAME=", "NEW", "Y=3"})
	if want := []string{"PATH=b", "HOSTNAME=", "Y=3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}
