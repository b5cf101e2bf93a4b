// Package peer calls kiste-runtime and its peers, runc and crun, in one way, so
// that a test or a measurement is a loop over them.
//
//	takes    the programs on $PATH, and this repository to build kiste-runtime from
//	gives    a Runtime, whose state lies in a directory of its own; a Bundle to run
//	touches  that directory
//	state    what the runtimes keep below the directory
//
// It is for tests and benchmarks alone.
package peer

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"kiste/internal/need"
)

// Names are all runtimes that New knows, ours first.
var Names = []string{"kiste-runtime", "runc", "crun"}

// A Runtime is one program with runc's command line, and a directory for its
// state. It is safe for concurrent use.
type Runtime struct {
	Name string
	Path string   // of the program
	Root string   // where it keeps its state
	Args []string // global options before each verb, besides --root

	// Attr and Env are how the program is started: as another user, say. Nil:
	// like any other program of this process.
	Attr *syscall.SysProcAttr
	Env  []string
}

// New finds the runtime name, one of Names, on $PATH (kiste-runtime: in bin)
// and gives it a root below dir.
func New(name, bin, dir string) (*Runtime, error) {
	path := filepath.Join(bin, name)
	if name != Names[0] {
		var err error
		if path, err = exec.LookPath(name); err != nil {
			return nil, err
		}
	}
	root := filepath.Join(dir, name+"-root")
	return &Runtime{Name: name, Path: path, Root: root}, os.MkdirAll(root, 0o700)
}

// Build builds kiste-runtime into dir, as the Makefile does. The repository is
// found from the working directory upwards. $KISTE_RUNTIME names a program that
// takes its place, so that what a test asks for can be tried on a peer.
func Build(dir string) error {
	if other := os.Getenv("KISTE_RUNTIME"); other != "" {
		return os.Symlink(other, filepath.Join(dir, Names[0]))
	}
	return need.Build(dir)
}

// Command is a call of the runtime. Containers inherit its standard streams,
// so that reading a pipe to its end means to wait for the container.
func (r *Runtime) Command(args ...string) *exec.Cmd {
	all := append([]string{"--root", r.Root}, r.Args...)
	cmd := exec.Command(r.Path, append(all, args...)...)
	cmd.SysProcAttr, cmd.Env = r.Attr, r.Env
	return cmd
}

// Run calls the runtime and returns what it and the container wrote. An error
// ends with that, too.
func (r *Runtime) Run(args ...string) (string, error) {
	var text bytes.Buffer
	cmd := r.Command(args...)
	cmd.Stdout, cmd.Stderr = &text, &text
	// a container that outlives the runtime may keep the pipe
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	out := text.String()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", r.Name, strings.Join(args, " "), err, strings.TrimSpace(out))
	}
	return out, err
}

// Detached calls the runtime with standard streams that nobody waits for: with
// create, or run --detach. What was written is in the file, which the caller
// closes.
func (r *Runtime) Detached(args ...string) (*os.File, error) {
	file, err := os.CreateTemp(r.Root, ".output")
	if err != nil {
		return nil, err
	}
	os.Remove(file.Name())
	cmd := r.Command(args...)
	cmd.Stdout, cmd.Stderr = file, file
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
		file.Close()
		return nil, fmt.Errorf("%s %s: %w: %s", r.Name, strings.Join(args, " "), err, strings.TrimSpace(string(text)))
	}
	return file, nil
}

// Script writes a shell script that is the runtime with its options, for
// programs that know a runtime only by its path. crun of Debian 12 knows
// runtime-spec up to 1.1, so its script says an older version in the bundle.
func (r *Runtime) Script(dir string) (string, error) {
	path := filepath.Join(dir, r.Name+".sh")
	text := "#!/bin/sh\n"
	if r.Name == "crun" {
		text += `dir=. prev=
for arg; do
	[ "$prev" != --bundle ] || dir=$arg
	prev=$arg
done
[ "$1" != create ] || [ ! -f "$dir/config.json" ] ||
	sed -i 's/"ociVersion": *"1\.[0-9]*\.[0-9]*"/"ociVersion":"1.0.2"/' "$dir/config.json"
`
	}
	text += fmt.Sprintf("exec '%s' --root '%s' %s \"$@\"\n", r.Path, r.Root, strings.Join(r.Args, " "))
	return path, os.WriteFile(path, []byte(text), 0o755)
}
