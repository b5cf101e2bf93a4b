package engine

import (
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine/inspect"
)

func TestPathIn(t *testing.T) {
	for line, want := range map[string]string{
		"touch: /etc/x: Read-only file system":                                "/etc/x",
		"touch: cannot touch '/data/a b': Permission denied":                  "/data/a",
		"open /data/db.lock: read-only file system":                           "/data/db.lock",
		`PermissionError: [Errno 13] Permission denied: '/var/lib/x'`:         "/var/lib/x",
		"Error: EROFS: read-only file system, open '/app/../app/log.txt'":     "/app/log.txt",
		"/bin/sh: 1: cannot create /x: Permission denied":                     "/x",
		"/docker-entrypoint.sh: line 9: /run/pid: Read-only file system":      "/run/pid",
		"http://example.org/a: Permission denied":                             "",
		"and/or: Permission denied":                                           "",
		"bind: Address already in use":                                        "",
		"no path at all":                                                      "",
		"/":                                                                   "",
		"cannot write to /var/log/x.log.":                                     "/var/log/x.log",
		"mkdir /a\x1b[31m: permission denied":                                 "/a\x1b[31m",
		"nginx: [emerg] open() \"/run/nginx.pid\" failed (30: Read-only file": "/run/nginx.pid",
	} {
		if got := pathIn(line); got != want {
			t.Errorf("%q: got %q, want %q", line, got, want)
		}
	}
}

func FuzzPathIn(f *testing.F) {
	f.Add("/bin/sh: 1: cannot create /x: Permission denied")
	f.Add("’/‘/: ")
	f.Fuzz(func(t *testing.T, line string) {
		p := pathIn(line)
		if p != "" && (p[0] != '/' || len(p) > len(line)) {
			t.Errorf("%q: %q", line, p)
		}
		v := Evidence{Log: []string{line, "x: " + line + " Permission denied"}, Landlock: 7}
		for _, finding := range cluesIn(&Container{}, v) {
			if strings.ContainsAny(finding.Says+finding.Remedy, "\x1b\n\a") {
				t.Errorf("%q is not plain: %q", line, finding)
			}
		}
	})
}

// boxed is a container with a wish for each wall.
func boxed(change func(*Container)) *Container {
	c := &Container{Container: inspect.Container{Name: "web", State: inspect.State{Status: inspect.Exited, ExitCode: 1}, Result: &bundle.Result{Spec: &specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_MKNOD"}}},
		Linux:   &specs.Linux{ReadonlyPaths: []string{"/proc/sys", "/proc/bus"}},
		Mounts: []specs.Mount{{Destination: "/proc", Type: "proc"}, {Destination: "/sys", Type: "sysfs", Options: []string{"ro"}}, {Destination: "/dev/shm", Type: "tmpfs"},
			{Destination: "/conf", Type: "bind", Options: []string{"rbind", "ro"}}, {Destination: "/data", Type: "bind"}, {Destination: "/tmp", Type: "tmpfs", Options: []string{"noexec"}}},
	}}}}
	c.Wishes.Mounts = []bundle.Mount{{Type: "bind", Target: "/conf", ReadOnly: true, Option: "-v", Text: "/etc/conf:/conf:ro"},
		{Type: "bind", Target: "/data", Option: "-v", Text: "/srv:/data"}, {Type: "tmpfs", Target: "/tmp", Option: "--tmpfs", Text: "/tmp:size=1m"}}
	if change != nil {
		change(c)
	}
	return c
}

func TestWhatLastWordsMean(t *testing.T) {
	const newest = 7
	readOnly := func(c *Container) { c.Wishes.ReadOnly = true }
	cap := func(names ...string) func(*Container) {
		return func(c *Container) { c.Result.Spec.Process.Capabilities.Bounding = names }
	}
	for _, tt := range []struct {
		line     string
		change   func(*Container)
		landlock int
		want     []string
		not      string
	}{
		{line: "touch: /etc/x: Read-only file system", change: readOnly, want: []string{`probably "/etc/x" is on its root, which --read-only makes so`, "--tmpfs /etc", "-v NAME:/etc"}},
		{line: "touch: /etc/x: Read-only file system", want: []string{"--read-only, a mount with :ro"}, not: "probably"},
		{line: "error: read-only file system", change: func(c *Container) { readOnly(c); c.Wishes.Mounts = nil }, want: []string{"probably it has written on its root"}},
		{line: "error: read-only file system", change: readOnly, not: "probably"},
		{line: "open /conf/a: EROFS", change: readOnly, want: []string{`"/conf/a" is below "/conf", which is mounted read-only (-v /etc/conf:/conf:ro)`, "leave out ro"}},
		{line: "open /confuse: EROFS", change: readOnly, want: []string{"is on its root"}, not: "below"},
		{line: "open /data/a: EROFS", change: readOnly, not: "probably"}, // by its own file system
		{line: "sh: can't create /proc/sys/net/ipv4/ip_forward: Read-only file system", change: readOnly, want: []string{"a setting of the kernel", "--sysctl net.ipv4.ip_forward=VALUE"}},
		{line: "open /proc/bus/x: Read-only file system", want: []string{"a setting of the kernel", "systempaths=unconfined"}},
		{line: "mkdir /sys/fs/cgroup/a: Read-only file system", want: []string{`below "/sys", which is read-only in containers`}},
		{line: "touch: '/a\x1bb': Read-only file system", change: readOnly, want: []string{`"/a\x1bb"`}, not: "\x1b"},

		{line: "mknod: /x: Permission denied", landlock: newest, want: []string{"probably Landlock, under which no device nodes are made", "--device"}},
		{line: "mknod: /x: Permission denied", landlock: 0, not: "Landlock"},
		{line: "mknod: /x: Permission denied", landlock: 1, not: "Landlock"},
		{line: "mknod: /x: Permission denied", landlock: newest, change: func(c *Container) { c.Result.NoLandlock = true }, not: "Landlock"},
		{line: "mknod: /x: Permission denied", landlock: newest, change: cap("CAP_SYS_ADMIN"), not: "Landlock"},
		{line: "touch /x: Permission denied", landlock: newest, not: "Landlock"},
		{line: "kill: (1) - Operation not permitted", landlock: newest, change: func(c *Container) { c.Wishes.PID.Kind = bundle.HostNS }, want: []string{"probably Landlock", "--pid host", "landlock=off"}},
		{line: "kill: (1) - Operation not permitted", landlock: 5, change: func(c *Container) { c.Wishes.PID.Kind = bundle.HostNS }, not: "Landlock"},
		{line: "kill: (1) - Operation not permitted", landlock: newest, not: "Landlock"},
		{line: "connect @/x: Operation not permitted", landlock: newest, change: func(c *Container) { c.Wishes.Network.Kind = bundle.HostNS }, want: []string{"probably Landlock", "--network host"}},

		{line: "mkdir: cannot create '/data/x': Permission denied", want: []string{`"/data/x" is below a directory of the host (-v /srv:/data)`, "-v ...:U"}},
		{line: "cannot execute /tmp/x: Permission denied", want: []string{"nothing can be executed", "--tmpfs /tmp:exec"}},
		{line: "open /var/x: permission denied", change: func(c *Container) { c.Result.User = "app" }, want: []string{`"/var/x" lets other users in than "app"`, "--user root"}},
		{line: "open /var/x: permission denied", change: func(c *Container) { c.Result.User = "0:0" }, not: "probably"},
		{line: "open /var/x: permission denied", not: "probably"},

		{line: "RTNETLINK answers: Operation not permitted", want: []string{"probably for want of the capability NET_ADMIN", "--cap-add NET_ADMIN"}},
		{line: "RTNETLINK answers: Operation not permitted", change: cap("CAP_NET_ADMIN"), want: []string{"cannot be seen from outside"}, not: "probably"},
		{line: "chown: /x: Operation not permitted", want: []string{"cannot be seen from outside"}, not: "probably"},
		{line: "chown: /x: Operation not permitted", change: cap(), want: []string{"--cap-add CHOWN"}},
		{line: "mount: /mnt: Operation not permitted", want: []string{"--cap-add SYS_ADMIN"}},
		{line: "x: Operation not permitted", want: []string{"cannot be seen from outside", "denials=log"}, not: "probably"},

		{line: "write /dev/shm/a: no space left on device", want: []string{"/dev/shm, which is full", "--shm-size"}},
		{line: "write /tmp/a: no space left on device", want: []string{"(--tmpfs /tmp:size=1m)", "size="}},
		{line: "write /data/a: ENOSPC", want: []string{"on the host is full", "df -i"}},
		{line: "write /a: No space left on device", want: []string{"kiste system df"}, not: "probably"},
		{line: "inotify_add_watch /data/a: No space left on device", want: []string{"max_user_watches"}},

		{line: "bind() to 0.0.0.0:80 failed (98: Address already in use)", want: []string{"another process of it listens there"}},
		{line: "bind() to 0.0.0.0:80 failed (98: Address in use)", change: func(c *Container) { c.Wishes.Network.Kind = bundle.HostNS }, want: []string{"--network host", "ss -ltnup"}},
		{line: "EADDRINUSE", change: func(c *Container) { c.Wishes.Network = bundle.Namespace{Kind: bundle.Container, Of: "db"} }, want: []string{`container "db"`}},

		{line: "ping: db: Name or service not known", want: []string{"not known on the default network", "kiste network create"}},
		{line: "bad address 'db'", change: func(c *Container) { c.Wishes.Network.Kind = bundle.None }, want: []string{"its network is none", "--network bridge"}},
		{line: "curl: (6) Could not resolve host: db", change: func(c *Container) { c.Endpoints = []inspect.Endpoint{{Name: "lab", User: true}} }, want: []string{"no container that runs on its networks has that name", "--network-alias"}},
		{line: "db: Temporary failure in name resolution", change: func(c *Container) { c.Wishes.Network.Kind = bundle.HostNS }, want: []string{"no name server could be asked"}, not: "probably"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			say(t, Why(boxed(tt.change), Evidence{Log: []string{"it begins", tt.line}, Landlock: tt.landlock, Audit: true}), tt.want, tt.not)
		})
	}
}

// Every reason that can be guessed belongs to a clue.
func TestGuessesHaveClues(t *testing.T) {
	left := guesses()
	for _, c := range clues() {
		delete(left, c.words)
	}
	for words := range left {
		t.Errorf("nobody looks for %q", words)
	}
}

func TestWhatTheKernelCannotTell(t *testing.T) {
	for _, tt := range []struct {
		landlock int
		audit    bool
		want     string
	}{
		{0, true, "no Landlock"}, {6, true, "version 6"}, {7, false, "no audit"}, {7, true, ""},
	} {
		c := boxed(func(c *Container) { c.Wishes.Security.LogDenials = true })
		var text string
		for _, f := range silences(c, Evidence{Landlock: tt.landlock, Audit: tt.audit}) {
			text += f.Says
		}
		if tt.want == "" && text != "" || !strings.Contains(text, tt.want) {
			t.Errorf("%+v: %q", tt, text)
		}
	}
	if f := silences(boxed(nil), Evidence{}); len(f) > 0 {
		t.Errorf("nobody has asked: %v", f)
	}
}
