package kiste_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// floors is the house, from the cellar up. A package may import packages of
// lower floors, and of its own floor only what stands to its left.
//
// DO NOT EDIT THIS TABLE TO MAKE A BUILD PASS. Moving a package is a design
// decision: say why in the commit, and in ARCHITECTURE.md.
var floors = [][]string{
	{"fault", "progress", "internal/stack", "internal/pool", "internal/sys", "internal/stub", "internal/bus", "store", "host", "internal/need"},
	{"kernel/chroot", "kernel/namespace", "kernel/cgroup", "kernel/cgroup/systemd", "kernel/cgroup/resctrl", "kernel/network/netlink", "kernel/network/nft", "kernel/network", "kernel/network/rules", "kernel/privilege/selinux", "kernel/privilege"},
	{"image/reference", "image/source", "image/layout", "image/source/sourcetest", "image/registry", "image/compression", "image/archive", "image/transport", "image/layer",
		"image/catalog", "image/snapshot", "image/snapshot/snapshottest", "image/snapshot/overlay"},
	{"container/logfile", "container/relay", "container/bundle", "container/plan", "container/process", "container/hook", "container/criu", "container/lifecycle", "container/monitor", "container/resolver", "container/proxy"},
	{"engine/inspect", "engine/event", "engine/cni", "engine", "engine/fetch", "engine/files", "engine/serving", "engine/naming", "engine/proxying", "engine/userstack", "engine/quadlet"},
	{"cli/option", "cli/terminal", "cli/ps", "cli/manual", "cli", "cli/heavy", "cli/oci"},
	{"cmd/kiste", "cmd/kisted", "cmd/kiste-runtime"},
}

// outside are the packages that stand on no floor: they hold tests alone.
var outside = []string{"", "test/vm", "test/script", "test/bench", "test/bench/pull", "test/bench/oci", "test/bench/network", "test/bench/rootless", "test/bench/resolver",
	"test/peer", "test/cri", "test/conformance/validation", "test/conformance/engine", "test/cve", "test/cve/attacker", "test/storm", "test/bench/system", "test/bench/verdict", "test/unit"}

// A guest is a foreign module: who may import it, and why we have it. Tests
// may import what tests need from anywhere.
type guest struct {
	module string
	rooms  []string // nil: tests alone
	why    string
}

var guests = []guest{
	{"golang.org/x/sys", []string{"internal/sys", "internal/stub", "host", "kernel/...", "container/...", "image/...", "engine/event", "engine/files", "engine/serving", "engine/proxying", "cli/heavy", "test/bench/oci", "test/cve/attacker"},
		"numbers and structures of the kernel's interface; calls are made in internal/sys"},
	{"github.com/opencontainers/runtime-spec", []string{"container/...", "engine", "engine/inspect", "kernel/privilege", "kernel/cgroup", "kernel/cgroup/resctrl", "cli/oci", "test/..."},
		"the words of the OCI runtime specification; a bundle is one"},
	{"github.com/klauspost/compress", []string{"image/compression", "engine/fetch", "test/bench/pull"},
		"zstd layers, and a gzip that is twice as fast as the standard library's"},
	{"github.com/ulikunitz/xz", []string{"image/compression"},
		"xz, in which root file systems are handed out; the host's xz(1) is twice as fast, but not on every host, and would be a program in C that reads what anybody made, as root"},
	{"github.com/checkpoint-restore/go-criu", []string{"container/criu", "container/lifecycle"},
		"the words of CRIU's protocol, in 0.3 MB; the talk itself is ours, since a terminal comes with it as a descriptor"},
	{"golang.org/x/net", []string{"container/resolver", "test/bench/resolver"},
		"dns/dnsmessage, the messages of the DNS, parsed without copies by those who make Go's own resolver; github.com/miekg/dns is a server and a zone file parser besides, and its first version is kept no further"},
	{"gvisor.dev/gvisor", []string{"engine/userstack"},
		"TCP and IP as a program, for users without pasta: used and kept by Google, Tailscale and Podman's machines, with congestion control and SACK of its own; vendored 4.5 MB of source, 3.3 MB in kisted, none in kiste. gvisor-tap-vsock is the same with a switch, DHCP and a DNS server around it, and pins a version of 2024; wireguard's tun adds nothing"},
	{"rsc.io/script", nil, "txtar scripts on the real binary"},
	{"golang.org/x/tools", nil, "txtar, the format of the scripts"},
}

// A file is a source file of the house, parsed.
type file struct {
	room   string // "kernel/cgroup"; "" is the roof
	name   string // "kernel/cgroup/group.go"
	test   bool
	syntax *ast.File
	set    *token.FileSet
	source []byte
}

func (f *file) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.name, f.set.Position(n.Pos()).Line)
}

// files parses the whole house once.
func files(t *testing.T) []*file {
	t.Helper()
	var all []*file
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (name == "vendor" || name == "bin" || d.Name() == "testdata" || name == "test/cache" || name != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case !strings.HasSuffix(name, ".go"):
			return nil
		}
		source, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		set := token.NewFileSet()
		syntax, err := parser.ParseFile(set, name, source, parser.ParseComments)
		if err != nil {
			return err
		}
		if bytes.HasPrefix(source, []byte("//go:build ignore\n")) || bytes.Contains(source, []byte("\n//go:build ignore\n")) {
			return nil // a generator, which go generate runs
		}
		room := strings.TrimPrefix(path.Dir(name), ".")
		all = append(all, &file{room, name, strings.HasSuffix(name, "_test.go"), syntax, set, source})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func imports(f *file) []string {
	var paths []string
	for _, spec := range f.syntax.Imports {
		p, _ := strconv.Unquote(spec.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

func TestFloors(t *testing.T) {
	rank := map[string]int{}
	for f, rooms := range floors {
		for i, room := range rooms {
			rank[room] = 1 + f*100 + i
		}
	}
	for _, f := range files(t) {
		if slices.Contains(outside, f.room) {
			continue
		}
		mine := rank[f.room]
		if mine == 0 {
			t.Errorf("%s: package %q stands on no floor; add it to floors and to ARCHITECTURE.md", f.name, f.room)
			continue
		}
		for _, imp := range imports(f) {
			to, ours := strings.CutPrefix(imp, "kiste/")
			// a test stands outside of its own room's walls, and may ask for what it needs
			if !ours || f.test && (to == f.room || to == "internal/need") {
				continue
			}
			if rank[to] >= mine && !f.test {
				t.Errorf("%s: %s imports %s, which is not below it", f.name, f.room, to)
			}
			if a, b := wing(f.room), wing(to); a != "" && b != "" && a != b && inKernel(a) == inKernel(b) {
				t.Errorf("%s: %s and %s must not know each other", f.name, f.room, to)
			}
			if to == "internal/need" && !f.test {
				t.Errorf("%s: internal/need is for tests", f.name)
			}
		}
	}
}

// wing is the part of the house that a room keeps to. The image wing and the
// container wing are strangers, and so are the kernel modules to each other.
func wing(room string) string {
	part := strings.Split(room, "/")
	switch {
	case part[0] == "image" || part[0] == "container":
		return part[0]
	case part[0] == "kernel":
		return "kernel/" + part[1]
	}
	return ""
}

func inKernel(wing string) bool { return strings.HasPrefix(wing, "kernel/") }

func TestGuestsAreInvited(t *testing.T) {
	for _, f := range files(t) {
		for _, imp := range imports(f) {
			first, _, _ := strings.Cut(imp, "/")
			if !strings.Contains(first, ".") {
				continue
			}
			i := slices.IndexFunc(guests, func(g guest) bool { return imp == g.module || strings.HasPrefix(imp, g.module+"/") })
			switch {
			case i < 0:
				t.Errorf("%s: nobody invited %s; give a reason in guests", f.name, imp)
			case !f.test && !admitted(guests[i].rooms, f.room):
				t.Errorf("%s: %s may not import %s (see guests)", f.name, f.room, imp)
			}
		}
	}
}

func admitted(rooms []string, room string) bool {
	return slices.ContainsFunc(rooms, func(r string) bool {
		prefix, all := strings.CutSuffix(r, "...")
		return r == room || all && strings.HasPrefix(room, prefix)
	})
}

// System calls are made in internal/sys, so that it is the list of what Kiste
// can ask of a kernel. Constants and types may be named elsewhere.
func TestSystemCallsAreMadeInOneRoom(t *testing.T) {
	for _, f := range files(t) {
		if f.test || f.room == "internal/sys" || f.room == "container/process" || slices.Contains(outside, f.room) {
			continue
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			if pkg, name := selector(call.Fun); (pkg == "unix" || pkg == "syscall") && !slices.Contains(conversions, name) {
				t.Errorf("%s: %s.%s is called outside of internal/sys", f.at(n), pkg, name)
			}
			return true
		})
	}
}

// conversions look like calls and ask nothing of the kernel.
var conversions = []string{"Errno", "Signal", "WaitStatus", "Mkdev", "Major", "Minor", "SignalName", "ErrnoName", "SignalNum", "ByteSliceToString", "CmsgSpace"}

func selector(e ast.Expr) (pkg, name string) {
	s, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", ""
	}
	if id, ok := s.X.(*ast.Ident); ok && id.Obj == nil {
		return id.Name, s.Sel.Name
	}
	return "", ""
}

func TestPrintingAndExitingAreForDoors(t *testing.T) {
	forbidden := map[string][]string{
		"fmt": {"Print", "Printf", "Println"},
		"os":  {"Exit"},
	}
	for _, f := range files(t) {
		if f.test || strings.HasPrefix(f.room, "cli") || strings.HasPrefix(f.room, "cmd/") || slices.Contains(outside, f.room) {
			continue
		}
		if slices.Contains(imports(f), "log") || slices.Contains(imports(f), "log/slog") {
			t.Errorf("%s: libraries do not log", f.name)
		}
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				pkg, name := selector(s)
				if slices.Contains(forbidden[pkg], name) || pkg == "os" && (name == "Stdout" || name == "Stderr") {
					t.Errorf("%s: %s.%s belongs to cli and cmd", f.at(n), pkg, name)
				}
			}
			return true
		})
	}
}

// kernelFiles begin the names of files that are the kernel's.
var kernelFiles = regexp.MustCompile(`^/(proc|sys)(/|$)`)

func TestKernelFilesAreReadByTheHeart(t *testing.T) {
	for _, f := range files(t) {
		top, _, _ := strings.Cut(f.room, "/")
		if f.test || top == "kernel" || top == "host" || top == "internal" || f.room == "container/process" || slices.Contains(outside, f.room) {
			continue
		}
		eachString(f, func(n ast.Node, s string) {
			if kernelFiles.MatchString(s) && !mayName(f.room) {
				t.Errorf("%s: %q: the kernel's files belong to kernel, host and container/process", f.at(n), s)
			}
		})
	}
}

// mayName says which rooms name /proc and /sys as places inside a container,
// or in a specification, and touch neither on the host.
func mayName(room string) bool {
	return room == "container/bundle" || room == "container/plan" || room == "engine" || room == "cli/oci"
}

func TestStatePathsAreBuiltInStore(t *testing.T) {
	state := regexp.MustCompile(`^/(var/lib|run)/kiste`)
	for _, f := range files(t) {
		if f.test || f.room == "store" || slices.Contains(outside, f.room) {
			continue
		}
		eachString(f, func(n ast.Node, s string) {
			if state.MatchString(s) {
				t.Errorf("%s: %q: paths of state are built in store", f.at(n), s)
			}
		})
	}
}

func eachString(f *file, visit func(n ast.Node, s string)) {
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				visit(n, s)
			}
		}
		return true
	})
}

func TestNothingHappensBehindTheCaller(t *testing.T) {
	for _, f := range files(t) {
		for _, d := range f.syntax.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: an init function; write a row in a table instead", f.at(d))
			}
		}
		for _, spec := range f.syntax.Imports {
			// unsafe is what go:linkname asks for, embed what go:embed asks for
			if spec.Name != nil && spec.Name.Name == "_" && spec.Path.Value != `"embed"` && spec.Path.Value != `"unsafe"` {
				t.Errorf("%s: a blank import of %s", f.at(spec), spec.Path.Value)
			}
		}
	}
}

// Programs that start by internal/sys.entry have no processors but one and may
// open nothing, and nor may their children, until they say Begin.
func TestWhatStartsSoonerBeginsFirst(t *testing.T) {
	for _, f := range files(t) {
		if f.room != "cmd/kiste" && f.room != "cmd/kiste-runtime" {
			continue
		}
		for _, d := range f.syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Name.Name != "main" {
				continue
			}
			var pkg, name string
			if s, ok := fn.Body.List[0].(*ast.ExprStmt); ok {
				if call, ok := s.X.(*ast.CallExpr); ok {
					pkg, name = selector(call.Fun)
				}
			}
			if pkg != "sys" || name != "Begin" {
				t.Errorf("%s: main does not begin with sys.Begin()", f.at(fn))
			}
		}
	}
}

func TestNothingIsLeftForLater(t *testing.T) {
	later := regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`)
	for _, f := range files(t) {
		for _, g := range f.syntax.Comments {
			if m := later.FindString(g.Text()); m != "" {
				t.Errorf("%s: %s", f.at(g), m)
			}
		}
	}
}

// Every room tells at its door what it takes, gives, touches and keeps.
func TestEveryRoomHasADoorPlate(t *testing.T) {
	plates := map[string]string{}
	for _, f := range files(t) {
		if f.test || f.room == "" || f.syntax.Name.Name == "main" {
			continue
		}
		if _, ok := plates[f.room]; !ok {
			plates[f.room] = ""
		}
		if f.syntax.Doc != nil {
			plates[f.room] += f.syntax.Doc.Text()
		}
	}
	for room, doc := range plates {
		if !strings.HasPrefix(doc, "Package "+path.Base(room)+" ") {
			t.Errorf("%s: no package comment", room)
			continue
		}
		for _, line := range []string{"takes", "gives", "touches", "state"} {
			if !regexp.MustCompile(`(?m)^\s+` + line + `\s+\S`).MatchString(doc) {
				t.Errorf("%s: the package comment has no line %q", room, line)
			}
		}
	}
}

var badNames = []string{"pkg", "util", "utils", "common", "types", "helpers", "runtime", "errors", "log"}

func TestRoomsHaveTheirOwnNames(t *testing.T) {
	for _, f := range files(t) {
		for part := range strings.SplitSeq(f.room, "/") {
			if slices.Contains(badNames, part) {
				t.Errorf("%s: %q says nothing", f.name, part)
			}
		}
	}
}

// What each binary links is a file that is read when it changes.
func TestBinariesLinkWhatIsWritten(t *testing.T) {
	binaries, err := filepath.Glob("cmd/*")
	if err != nil || len(binaries) == 0 {
		t.Fatalf("no commands: %v", err)
	}
	for _, dir := range binaries {
		if sources, _ := filepath.Glob(filepath.Join(dir, "*.go")); len(sources) == 0 {
			continue
		}
		golden(t, filepath.Join(dir, "deps.golden"), linked(t, "./"+dir))
	}
}

// linked lists the packages of a binary, ours and foreign ones, and of the
// standard library those without "internal" in their paths.
func linked(t *testing.T, pkg string) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard", pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		errors.As(err, &exit)
		t.Fatalf("go list %s: %v\n%s", pkg, err, exit.Stderr)
	}
	var names []string
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Standard   bool
		}
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if !p.Standard || !strings.Contains("/"+p.ImportPath+"/", "/internal/") && !strings.HasPrefix(p.ImportPath, "vendor/") {
			names = append(names, p.ImportPath)
		}
	}
	slices.Sort(names)
	return strings.Join(names, "\n") + "\n"
}

// These start for every container: they must not link what costs every start.
func TestKisteStaysLight(t *testing.T) {
	heavy := []string{"net\n", "net/", "crypto/tls", "compress/", "text/template", "html/", "regexp", "go/", "testing", "github.com/klauspost/"}
	for _, binary := range []string{"kiste", "kiste-runtime"} {
		for name := range strings.Lines(linked(t, "./cmd/"+binary)) {
			for _, h := range heavy {
				if strings.HasPrefix(name, h) {
					t.Errorf("%s links %s, which belongs into kisted", binary, strings.TrimSpace(name))
				}
			}
		}
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s is not what it was (\"go test . -update\" rewrites it):\n%s", name, difference(string(want), got))
	}
}

// difference lists the lines that only one side has.
func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var s strings.Builder
	for _, line := range a {
		if !slices.Contains(b, line) {
			fmt.Fprintf(&s, "- %s\n", line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			fmt.Fprintf(&s, "+ %s\n", line)
		}
	}
	return s.String()
}
