package process_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"kiste/container/plan"
	"kiste/container/process"
	"kiste/host"
	"kiste/internal/need"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The calls that the child makes are those that were printed, one for one.
func TestChildMakesTheCallsThatWerePrinted(t *testing.T) {
	need.Power(t, host.Root)
	need.Program(t, "strace")
	need.Clean(t)
	root := busybox(t)
	for i, options := range [][]string{
		{},
		{"-t"},
		{"--privileged"},
		{"--userns", "host"},
		{"--network", "host"},
		{"--pid", "host"},
		{"-m", "64m", "--pids-limit", "50", "--cpus", "0.5"},
		{"--read-only", "-w", "/tmp/a/b", "--tmpfs", "/x", "-v", "/etc:/etc/host:ro", "--sysctl", "net.ipv4.ip_forward=1"},
		{"-u", "1000:5", "--group-add", "7", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--device", "/dev/null:/dev/my/null"},
	} {
		if testing.Short() && i%4 != 0 {
			continue
		}
		t.Run("run "+strings.Join(options, " "), func(t *testing.T) {
			s := newStorage(t)
			args := append(append([]string{"run", "--rm"}, options...), "rootfs:"+root, "true")
			printed := s.run(t, append([]string{"run", "--plan=calls"}, args[1:]...)...)
			if printed.code != 0 {
				t.Fatal(printed.err)
			}
			follow(t, parsePlan(printed.out), traced(t, s, args))
		})
	}
}

// The same of a document with all that those have not. A tracer cannot follow
// into a process that was forked by another name, so its clocks are the host's.
func TestChildOfADocumentMakesTheCallsThatWerePrinted(t *testing.T) {
	if os.Getenv("KISTE_TRACED") != "" {
		startTraced(t)
		return
	}
	need.Power(t, host.Root, host.Idmap)
	need.Program(t, "strace")
	need.Clean(t)
	for _, kind := range []string{"plain", "mapped"} {
		t.Run(kind, func(t *testing.T) {
			dir := newStorage(t).dir
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("strace", "-ff", "-s", "4096", "-X", "raw", "-o", dir+"/trace", self, "-test.run", "^TestChildOfADocument", "-test.v")
			cmd.Env = append(os.Environ(), "KISTE_TRACED="+kind, "KISTE_PRINTED="+dir+"/printed", "KISTE_BUILT="+kiste)
			if r := finish(t, cmd); r.code != 0 {
				t.Fatalf("code %d\n%s\n%s", r.code, r.out, r.err)
			}
			printed, err := os.ReadFile(dir + "/printed")
			if err != nil {
				t.Fatal(err)
			}
			follow(t, parsePlan(string(printed)), pivoted(t, dir))
		})
	}
}

// startTraced prints the calls of a rich document and carries it out.
func startTraced(t *testing.T) {
	t.Helper()
	b := rich(t)
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.TimeNamespace })
	b.spec.Linux.TimeOffsets = nil
	if os.Getenv("KISTE_TRACED") == "mapped" {
		b.mapped()
	}
	p, err := plan.Compile(b.spec, nil, b.o, b.f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(os.Getenv("KISTE_PRINTED"), []byte(p.Calls()), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := tryStart(p, process.Options{Hooks: b.hooks, Listener: func(int, int) error { return nil }}); err != nil {
		t.Fatal(err)
	}
}

// A line is one system call as text.
type line struct {
	text   string
	name   string
	args   []string
	failed bool
	skip   int  // of a plan: how many calls to pass over
	onOK   bool // when this one succeeds, else when it fails
	may    bool // it may fail
}

var ids = regexp.MustCompile(`[0-9a-f]{64}|\b[0-9a-f]{12}\b`)

func parseLine(text string) (line, bool) {
	text = ids.ReplaceAllString(text, "ID")
	name, rest, found := strings.Cut(text, "(")
	if !found || strings.ContainsAny(name, " #") {
		return line{}, false
	}
	args, after := arguments(rest)
	return line{text: text, name: name, args: args, failed: strings.Contains(after, "= -1 ")}, true
}

// arguments splits up to the closing parenthesis.
func arguments(s string) (args []string, after string) {
	depth, quoted, from := 0, false, 0
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[' || c == '(':
			depth++
		case c == ')' && depth == 0:
			return append(args, strings.TrimSpace(s[from:i])), s[i+1:]
		case c == '}' || c == ']' || c == ')':
			depth--
		case c == ',' && depth == 0:
			args, from = append(args, strings.TrimSpace(s[from:i])), i+1
		}
	}
	return args, ""
}

var rule = regexp.MustCompile(`\((then skip|else skip|with E[A-Z]+ skip|else the next but) (\d+)\)`)

func parsePlan(text string) []line {
	var calls []line
	for s := range strings.Lines(text) {
		l, ok := parseLine(s)
		if !ok {
			continue
		}
		l.may = strings.Contains(s, "(may fail") || strings.Contains(s, "(else the next)")
		if m := rule.FindStringSubmatch(s); m != nil {
			l.skip, _ = strconv.Atoi(m[2])
			l.onOK, l.may = m[1] == "then skip", true
		}
		calls = append(calls, l)
	}
	return calls
}

// traced runs kiste under strace and gives the calls of the child: from the
// end of the fork to the program.
func traced(t *testing.T, s storage, args []string) []line {
	t.Helper()
	dir := newStorage(t).dir
	cmd := s.command(args...)
	strace := append([]string{"strace", "-ff", "-s", "4096", "-X", "raw", "-o", dir + "/trace", kiste}, args...)
	cmd.Args = strace
	cmd.Path = "/usr/bin/strace"
	if r := finish(t, cmd); r.code != 0 {
		t.Fatalf("code %d\n%s", r.code, r.err)
	}
	return pivoted(t, dir)
}

// pivoted are the calls of the traced process that has called pivot_root.
func pivoted(t *testing.T, dir string) []line {
	t.Helper()
	files, _ := filepath.Glob(dir + "/trace.*")
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), "\npivot_root(") {
			return childOf(string(b))
		}
	}
	t.Fatal("no traced process called pivot_root")
	return nil
}

// childOf leaves out how every child begins (it wakes its parent, unblocks
// signals, closes the parent's end of the socket), and the standard streams.
func childOf(trace string) []line {
	var calls []line
	streams := 4
	for s := range strings.Lines(trace) {
		l, ok := parseLine(s)
		switch {
		case !ok, strings.HasPrefix(l.name, "rt_sig"), len(calls) == 0 && l.name == "futex":
			continue
		case len(calls) == 0 && streams > 0 && (l.name == "close" || l.name == "dup3" || l.name == "fcntl"):
			streams--
			continue
		}
		calls = append(calls, l)
	}
	return calls
}

// follow walks through the plan as the results say, and compares.
func follow(t *testing.T, plan, made []line) {
	t.Helper()
	next := 0
	for i := 0; i < len(plan); i++ {
		want := plan[i]
		if next >= len(made) {
			t.Fatalf("after %d calls nothing was made; printed was next\n%s", next, want.text)
		}
		got := made[next]
		next++
		if why := differ(want, got); why != "" {
			t.Fatalf("call %d, %s:\nprinted %smade    %s", next, why, want.text, got.text)
		}
		if got.failed && !want.may {
			t.Fatalf("call %d failed:\nprinted %smade    %s", next, want.text, got.text)
		}
		if strings.HasPrefix(want.name, "execve") && !got.failed {
			return
		}
		if want.skip > 0 && want.onOK != got.failed {
			i += want.skip
		}
	}
	t.Fatal("the plan has no end")
}

// differ compares the names, the strings, and the numbers where the plan has
// them; what it has as <slot>, NAME or {…} is not compared.
func differ(want, got line) string {
	if want.name != got.name {
		return "another call"
	}
	for i := range min(len(want.args), len(got.args)) {
		w, g := want.args[i], got.args[i]
		switch {
		case strings.HasPrefix(w, `"`) || strings.HasPrefix(w, "["+`"`):
			if unquote(w) != unquote(g) {
				return "argument " + strconv.Itoa(i+1)
			}
		case isNumber(w) && isNumber(g) && value(w) != value(g):
			return "argument " + strconv.Itoa(i+1)
		}
	}
	return ""
}

func unquote(s string) string {
	if u, err := strconv.Unquote(s); err == nil {
		return u
	}
	return s
}

func isNumber(s string) bool { return s != "" && (s[0] == '-' || s[0] >= '0' && s[0] <= '9') }

// value is cut to 32 bits: strace shows ids and descriptors so.
func value(s string) int32 {
	s, _, _ = strings.Cut(s, " ")
	if n, err := strconv.ParseUint(s, 0, 64); err == nil {
		return int32(n)
	}
	n, _ := strconv.ParseInt(s, 0, 64)
	return int32(n)
}
