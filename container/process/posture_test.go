package process_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"kiste/host"
	"kiste/internal/need"
	"kiste/kernel/namespace"
	"kiste/kernel/privilege"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// anyID is the id of a container, long or short.
var anyID = regexp.MustCompile(`[0-9a-f]{64}|\b[0-9a-f]{12}\b`)

// A level is a way to run a container.
type level struct {
	name    string
	options []string
	user    user
}

// A user is who runs kiste.
type user int

const (
	hostRoot user = iota
	ordinary      // with subordinate ids
	alone         // without
)

var levels = []level{
	{"default", nil, hostRoot},
	{"terminal", []string{"-t"}, hostRoot},
	{"privileged", []string{"--privileged"}, hostRoot},
	{"userns-host", []string{"--userns", "host"}, hostRoot},
	{"network-host", []string{"--network", "host"}, hostRoot},
	{"pid-host", []string{"--pid", "host"}, hostRoot},
	{"read-only", []string{"--read-only"}, hostRoot},
	{"no-new-privileges", []string{"--security-opt", "no-new-privileges"}, hostRoot},
	{"given", []string{"-u", "1000:5", "--group-add", "7", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--umask", "0077", "--ulimit", "nofile=100:200", "--oom-score-adj", "500",
		"-w", "/tmp", "-e", "A=b", "-h", "box", "--tmpfs", "/scratch:size=64k", "--shm-size", "1m", "--security-opt", "seccomp=unconfined", "--security-opt", "systempaths=unconfined"}, hostRoot},
	{"user", nil, ordinary},
	{"user-alone", nil, alone},
	{"user-privileged", []string{"--privileged"}, ordinary},
}

// Everything that /proc tells of a container's process, and what the process
// itself can find out, is written down for each level. A difference is read
// before the file is rewritten: it is what containers are promised.
//
// What depends on the host is not in the files, or in other words: what is
// inherited from whoever started kiste (limits, audit session, labels, nice,
// oom score) is compared with that and called "as its parent's"; ids outside
// are counted from the begin of their range; names of the container, of the
// store and of the host are replaced; mounts are sorted; the hierarchies of
// cgroups are one; what the host has below a /proc or /sys of its own that it
// shares, devices that only it has, and the options of its file systems, are
// left out; and a path that the host does not have counts as those beside it.
func TestPosture(t *testing.T) {
	need.Clean(t)
	root := busybox(t)
	addProbe(t, root)
	for _, l := range levels {
		t.Run(l.name, func(t *testing.T) {
			l.need(t)
			golden(t, "testdata/posture/"+l.name+".txt", takePosture(t, l, root))
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(string(b), "\n")
	for _, line := range strings.Split(got, "\n") {
		if i := slices.Index(want, line); i >= 0 {
			want = slices.Delete(want, i, i+1)
		} else {
			t.Errorf("%s: has not %q", file, line)
		}
	}
	for _, line := range want {
		t.Errorf("%s: has %q, which is not so", file, line)
	}
	if !t.Failed() && string(b) != got {
		t.Errorf("%s has another order; it is\n%s", file, got)
	}
}

// need skips the test where this process cannot be l's user. Root can be all.
func (l level) need(t *testing.T) {
	t.Helper()
	switch {
	case l.user == hostRoot, l.user == alone && os.Geteuid() != 0:
		need.Power(t, host.Root)
	case os.Geteuid() != 0:
		need.Power(t, host.Userns, host.Subids)
	default:
		need.Power(t, host.Userns)
		need.Program(t, "unshare", "setpriv", "newuidmap")
	}
}

// command is kiste as l's user runs it.
func (l level) command(t *testing.T, s storage, args ...string) *exec.Cmd {
	t.Helper()
	return l.commandOf(t, s, kiste, args...)
}

// commandOf is the same with another binary.
func (l level) commandOf(t *testing.T, s storage, binary string, args ...string) *exec.Cmd {
	t.Helper()
	line := append([]string{binary}, args...)
	if l.user != hostRoot && os.Geteuid() == 0 {
		var err error
		if line, err = need.AsUser(s.dir, l.user == ordinary, line...); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = s.env()
	return cmd
}

func takePosture(t *testing.T, l level, root string) string {
	s := newStorage(t)
	p := &posture{level: l, b: &strings.Builder{}, store: filepath.Base(s.dir)}
	p.parent = proc(os.Getpid())
	p.sleeper(t, s, root)
	fmt.Fprintf(p.b, "%s\n", strings.TrimSpace("kiste run "+strings.Join(l.options, " ")))
	p.who()
	p.privileges()
	p.walls()
	p.inherited(t)
	p.files()
	p.mounts(t)
	cmd := l.command(t, s, append(append([]string{"run", "--rm", "-e", probing("posture")}, l.options...), "rootfs:"+root, "/bin/probe")...)
	r := finish(t, cmd)
	if r.code != 0 {
		t.Fatalf("the probe: code %d\n%s\n%s", r.code, r.out, r.err)
	}
	p.inside(r.out)
	return p.b.String()
}

// sleeper starts a container whose program does nothing, and finds its process.
func (p *posture) sleeper(t *testing.T, s storage, root string) {
	t.Helper()
	cmd := p.level.command(t, s, append(append([]string{"run", "--rm", "--name", "sleeper"}, p.level.options...), "rootfs:"+root, "/bin/sleep", "1000")...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r := finish(t, p.level.command(t, s, "rm", "-f", "sleeper")); r.code != 0 {
			t.Errorf("rm: %s", r.err)
		}
		cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		r := finish(t, p.level.command(t, s, "inspect", "-f", "{{.Id}} {{.State.Pid}}", "sleeper"))
		if n, _ := fmt.Sscan(r.out, &p.id, &p.pid); n == 2 && p.pid > 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no container: %s", errs.String())
		}
	}
	p.child = proc(p.pid)
}

// proc is a directory of /proc.
type proc int

func (p proc) path(name string) string { return fmt.Sprintf("/proc/%d/%s", p, name) }

// read gives a file without the white space at its end, or why it has none.
func (p proc) read(name string) string {
	b, err := os.ReadFile(p.path(name))
	if err != nil {
		return errnoOf(err)
	}
	return strings.TrimSpace(string(b))
}

func (p proc) link(name string) string {
	to, err := os.Readlink(p.path(name))
	if err != nil {
		return errnoOf(err)
	}
	return to
}

// status is a field of proc_pid_status(5).
func (p proc) status(field string) string {
	for line := range strings.Lines(p.read("status")) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			return strings.Join(strings.Fields(value), " ")
		}
	}
	return "none"
}

// A posture in the making.
type posture struct {
	level         level
	b             *strings.Builder
	id            string // the container's
	pid           int
	store         string // the name of its store's directory
	child, parent proc
}

func (p *posture) title(format string, args ...any) { fmt.Fprintf(p.b, "\n"+format+"\n", args...) }

func (p *posture) say(name, format string, args ...any) {
	fmt.Fprintf(p.b, "  %-28s %s\n", name, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// outside names ids of the host by the begin of their range.
func outside(ids string) string {
	user, sub := need.UserID, need.FirstSubID
	if me := os.Geteuid(); me != 0 {
		user = me
		if uids, _, err := namespace.Subordinate(strconv.Itoa(me)); err == nil && len(uids) > 0 {
			sub = int(uids[0].First)
		}
	}
	var out []string
	for _, word := range strings.Fields(ids) {
		id, err := strconv.Atoi(word)
		const firstRange, rangeSize = 1 << 30, 1 << 16 // engine's
		switch {
		case err == nil && id >= firstRange && id < firstRange+8192*rangeSize:
			word = fmt.Sprintf("range+%d", (id-firstRange)%rangeSize)
		case err == nil && id >= sub && id < sub+rangeSize:
			word = fmt.Sprintf("subordinate+%d", id-sub)
		case err == nil && id == user:
			word = "user"
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

// who is who it is.
func (p *posture) who() {
	p.title("who, in the host's ids")
	for _, field := range []string{"Uid", "Gid", "Groups"} {
		p.say(field, "%s", outside(p.child.status(field)))
	}
	for _, file := range []string{"uid_map", "gid_map"} {
		var maps []string
		for line := range strings.Lines(p.child.read(file)) {
			f := strings.Fields(line)
			maps = append(maps, fmt.Sprintf("%s → %s × %s", f[0], outside(f[1]), f[2]))
		}
		p.say(file, "%s", strings.Join(maps, ", "))
	}
	p.say("setgroups", "%s", p.child.read("setgroups"))
	p.say("Umask", "%s", p.child.status("Umask"))
}

// privileges are what it may ask for.
func (p *posture) privileges() {
	p.title("what it may ask for")
	all, words := privilege.AllCaps(), "all that there are"
	if p.child.link("ns/user") == p.parent.link("ns/user") {
		all, _ = privilege.Held()
		words = "all that root has"
	}
	for _, field := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		set, _ := strconv.ParseUint(p.child.status(field), 16, 64)
		text := strings.Join(privilege.Caps(set).Names(), " ")
		if privilege.Caps(set) == all {
			text = words
		}
		p.say(field, "%s", text)
	}
	p.say("NoNewPrivs", "%s", p.child.status("NoNewPrivs"))
	p.say("Seccomp", "%s", p.child.status("Seccomp"))
	mine, _ := strconv.Atoi(p.child.status("Seccomp_filters"))
	before, _ := strconv.Atoi(p.parent.status("Seccomp_filters"))
	p.say("Seccomp_filters, its own", "%d", mine-before)
	for _, field := range []string{"SigBlk", "SigIgn", "SigCgt"} {
		own, _ := strconv.ParseUint(p.child.status(field), 16, 64)
		inherited, _ := strconv.ParseUint(p.parent.status(field), 16, 64)
		if field == "SigIgn" {
			own &^= inherited // nohup(1)
		}
		p.say(field, "%#x", own)
	}
	p.say("TracerPid", "%s", p.child.status("TracerPid"))
}

// walls are its namespaces and its cgroup.
func (p *posture) walls() {
	p.title("walls")
	kinds, _ := os.ReadDir(p.child.path("ns"))
	for _, kind := range kinds {
		name := "ns/" + kind.Name()
		where := "its own"
		if p.child.link(name) == p.parent.link(name) {
			where = "the host's"
		}
		p.say(name, "%s", where)
	}
	p.say("processes", "%d deep, number %s there", len(strings.Fields(p.child.status("NSpid"))), p.number())
	p.say("timens_offsets", "%s", strings.Join(strings.Fields(p.child.read("timens_offsets")), " "))
	if p.level.user == hostRoot {
		for _, path := range p.groups() {
			p.say("cgroup", "%s", path)
		}
	}
	p.say("session, group", "%s", p.ownSession())
}

// number is its own in its namespace; that of the host's is another each time.
func (p *posture) number() string {
	if all := strings.Fields(p.child.status("NSpid")); len(all) > 1 {
		return all[len(all)-1]
	}
	return "any"
}

func (p *posture) ownSession() string {
	own := func(field string) string {
		if p.child.status(field) == p.child.status("NSpid") {
			return "its own"
		}
		return "another's"
	}
	return own("NSsid") + ", " + own("NSpgid")
}

// groups are the paths of its cgroups that are not its parent's.
func (p *posture) groups() []string {
	var paths []string
	before := strings.Split(p.parent.read("cgroup"), "\n")
	for line := range strings.Lines(p.child.read("cgroup")) {
		line = strings.TrimSpace(line)
		if f := strings.SplitN(line, ":", 3); len(f) == 3 && !slices.Contains(before, line) {
			if path := p.names(f[2]); !slices.Contains(paths, path) {
				paths = append(paths, path)
			}
		}
	}
	slices.Sort(paths)
	return paths
}

// names replaces what is another in each run: ids, and the host's name where it
// is all of a value.
func (p *posture) names(s string) string {
	if name, _ := os.Hostname(); s == "HOSTNAME="+name || s == name {
		s = strings.TrimSuffix(s, name) + "HOST"
	}
	return anyID.ReplaceAllString(s, "ID")
}

// inherited is what it has of its parent, where nothing else was asked for.
func (p *posture) inherited(t *testing.T) {
	t.Helper()
	p.title("inherited")
	for _, name := range []string{"loginuid", "sessionid", "attr/current", "attr/exec", "oom_score_adj", "personality", "coredump_filter"} {
		value := p.child.read(name)
		if value == p.parent.read(name) {
			value = "as its parent's"
		}
		p.say(name, "%s", value)
	}
	plain, err := exec.Command("cat", "/proc/self/limits").Output() // this process has raised its own
	if err != nil {
		t.Fatal(err)
	}
	same := linesOf(string(plain))
	other := slices.DeleteFunc(linesOf(p.child.read("limits")), func(line string) bool { return slices.Contains(same, line) })
	if len(other) == 0 {
		other = []string{"as its parent's"}
	}
	p.say("limits", "%s", strings.Join(other, "; "))
	stat := p.child.read("stat")
	f := strings.Fields(stat[strings.LastIndex(stat, ")")+1:])
	p.say("terminal", "%s", map[bool]string{true: "none", false: "one"}[f[4] == "0"]) // tty_nr, the seventh of proc_pid_stat(5)
}

// linesOf gives lines with single blanks.
func linesOf(s string) []string {
	var list []string
	for line := range strings.Lines(s) {
		list = append(list, strings.Join(strings.Fields(line), " "))
	}
	return list
}

// files are its program, what it has open, and what it was told.
func (p *posture) files() {
	p.title("files")
	p.say("exe", "%s", p.child.link("exe"))
	p.say("cwd", "%s", p.child.link("cwd"))
	p.say("mapped", "%s", strings.Join(p.mapped(), " "))
	p.say("cmdline", "%s", strings.Join(strings.Split(strings.TrimRight(p.child.read("cmdline"), "\x00"), "\x00"), " "))
	fds, _ := os.ReadDir(p.child.path("fd"))
	for _, fd := range fds {
		to := regexp.MustCompile(`\[\d+\]`).ReplaceAllString(p.child.link("fd/"+fd.Name()), "")
		p.say("fd "+fd.Name(), "%s%s", to, p.accessMode(fd.Name()))
	}
	for _, e := range strings.Split(strings.TrimRight(p.child.read("environ"), "\x00"), "\x00") {
		p.say("environ", "%s", p.names(e))
	}
}

// mapped are the files in its memory.
func (p *posture) mapped() []string {
	var files []string
	for line := range strings.Lines(p.child.read("maps")) {
		if f := strings.Fields(line); len(f) > 5 && strings.HasPrefix(f[5], "/") {
			files = append(files, f[5])
		}
	}
	return slices.Compact(files)
}

func (p *posture) accessMode(fd string) string {
	for line := range strings.Lines(p.child.read("fdinfo/" + fd)) {
		if flags, ok := strings.CutPrefix(line, "flags:"); ok {
			n, _ := strconv.ParseUint(strings.TrimSpace(flags), 8, 32)
			return [...]string{", to read", ", to write", ", to read and write", ""}[n&3]
		}
	}
	return ""
}
