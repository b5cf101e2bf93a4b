package script

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	"rsc.io/script"

	"kiste/host"
	"kiste/internal/need"
)

// bin is the directory of the binaries under test.
var bin string

func TestMain(m *testing.M) {
	need.Main(m, func(dir string) error {
		bin = dir
		return errors.Join(need.Build(dir), writePrograms(dir))
	})
}

// TestScripts runs one script after the other: each is to leave the host as it
// was, which could not be told if others were at work.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScript(t, file) })
	}
}

// limit bounds one script: the longest take a minute on an idle machine.
const limit = 8 * time.Minute

func runScript(t *testing.T, file string) {
	before := floor(t)
	t.Cleanup(func() {
		if left := settle(t, before); len(left) > 0 {
			t.Errorf("left behind, and taken away now:\n%s", strings.Join(left, "\n"))
			sweep(left)
		}
	})
	archive, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	t.Cleanup(func() {
		if t.Failed() {
			removeAll(t, work)
		}
		if left := settleMarked(work); len(left) > 0 { // before collect, which would end holders
			t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
		}
		collect(work)
		if t.Failed() {
			removeEngines(work)
		}
	})
	// the parents of t.TempDir belong to root alone; an ordinary user must pass
	for dir := work; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if cgroups == "systemd" {
		if err := writeDriver(work); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	state, err := script.NewState(ctx, work, environment(work))
	if err != nil {
		t.Fatal(err)
	}
	if err := state.ExtractFiles(archive); err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	defer func() {
		if err := state.CloseAndWait(&log); err != nil {
			t.Error(err)
		}
		if t.Failed() || testing.Verbose() {
			t.Log("\n" + log.String())
		}
		if t.Failed() {
			removeContainers(work)
		}
	}()
	if err := engine(t).Execute(state, file, bufio.NewReader(strings.NewReader(string(archive.Comment))), &log); err != nil {
		t.Error(err)
	}
}

// cgroups is who makes the cgroups of kiste-runtime's containers: systemd, or
// kiste-runtime itself.
var cgroups = os.Getenv("KISTE_CGROUPS")

// path begins with the binaries under test. For systemd's cgroups another
// kiste-runtime is before them, which asks for those.
func path(work string) string {
	if cgroups != "systemd" {
		return bin + ":"
	}
	return filepath.Join(work, driver) + ":" + bin + ":"
}

const driver = ".driver"

// writeDriver makes the kiste-runtime that asks for systemd's cgroups.
func writeDriver(work string) error {
	dir := filepath.Join(work, driver)
	text := "#!/bin/sh\nexec " + filepath.Join(bin, "kiste-runtime") + " --systemd-cgroup \"$@\"\n"
	return errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "kiste-runtime"), []byte(text), 0o755))
}

func environment(work string) []string {
	return []string{
		"PATH=" + path(work) + os.Getenv("PATH"),
		"HOME=" + work, "WORK=" + work, "GROUP=" + group, "TMPDIR=" + os.TempDir(),
		"KISTE_LIB=" + work + "/lib", "KISTE_RUN=" + work + "/run",
		"DOCKER_CONFIG=" + work + "/.docker", "LANG=C.UTF-8", "TERM=dumb",
	}
}

func engine(t *testing.T) *script.Engine {
	e := script.NewEngine()
	for name, cmd := range map[string]script.Cmd{
		"kiste":    kisteCmd(),
		"code":     codeCmd(),
		"need":     needCmd(t),
		"debian":   debianCmd(t),
		"mkimage":  mkimageCmd(),
		"registry": registryCmd(t),
		"cutoff":   cutoffCmd(t),
		"asuser":   asuserCmd(),
		"pty":      ptyCmd(),
		"kill9":    kill9Cmd(),
		"diskfull": diskfullCmd(t),
		"freeport": freePortCmd(),

		"runtime":    runtimeCmd(),
		"mkbundle":   mkbundleCmd(),
		"to":         toCmd(),
		"eventually": eventuallyCmd(),
		"receiver":   receiverCmd(t),
		"manager":    managerCmd(t),
		"notify":     notifyCmd(),

		"workingcriu": workingCRIUCmd(t),

		"build":   buildCmd(t),
		"daemon":  daemonCmd(t),
		"finally": finallyCmd(t),
		"empty":   emptyCmd(),
	} {
		e.Cmds[name] = cmd
	}
	return e
}

// command is a script.Cmd of a function that runs to its end.
func command(summary, args string, least int, run func(s *script.State, args []string) (out, errs string, err error)) script.Cmd {
	usage := script.CmdUsage{Summary: summary, Args: args}
	return script.Command(usage, func(s *script.State, args ...string) (script.WaitFunc, error) {
		if len(args) < least {
			return nil, script.ErrUsage
		}
		out, errs, err := run(s, args)
		return func(*script.State) (string, string, error) { return out, errs, err }, nil
	})
}

// plain is args with the line of the OCI runtime in the place of its word.
func plain(s *script.State, args []string) []string {
	if args[0] == "runtime" {
		return runtimeLine(s, args[1:])
	}
	return args
}

// programTo is program with its output in a file, which is begun anew.
func programTo(s *script.State, file string, args []string) (*exec.Cmd, *strings.Builder, *strings.Builder, error) {
	cmd, out, errs, err := program(s, args)
	if err != nil {
		return nil, nil, nil, err
	}
	f, err := os.Create(s.Path(file))
	if err != nil {
		return nil, nil, nil, err
	}
	// The runtime's finalizer closes it, after the program has it.
	cmd.Stdout, cmd.Stderr = f, f
	return cmd, out, errs, nil
}

// program prepares a program with the script's directory and environment. The
// words asuser, pty and to FILE may stand before it, as in
// "code 126 asuser kiste …", and the word runtime is the OCI runtime.
func program(s *script.State, args []string) (*exec.Cmd, *strings.Builder, *strings.Builder, error) {
	switch {
	case args[0] == "asuser" && len(args) > 1:
		work, _ := s.LookupEnv("WORK")
		line, err := need.AsUser(work, true, args[1:]...)
		if err != nil {
			return nil, nil, nil, err
		}
		args = line
	case args[0] == "pty" && len(args) > 1:
		args = underPty(plain(s, args[1:]))
	case args[0] == "to" && len(args) > 2:
		return programTo(s, args[1], args[2:])
	}
	args = plain(s, args)
	path := args[0]
	if !strings.Contains(path, "/") {
		list, _ := s.LookupEnv("PATH")
		for dir := range strings.SplitSeq(list, ":") {
			if info, err := os.Stat(filepath.Join(dir, path)); err == nil && info.Mode()&0o111 != 0 && !info.IsDir() {
				path = filepath.Join(dir, path)
				break
			}
		}
	}
	cmd := exec.CommandContext(s.Context(), path, args[1:]...)
	cmd.Args[0] = args[0]
	cmd.Dir, cmd.Env = s.Getwd(), s.Environ()
	cmd.WaitDelay = 5 * time.Second
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	return cmd, &out, &errs, nil
}

func runProgram(s *script.State, args []string) (string, string, error) {
	cmd, out, errs, err := program(s, args)
	if err != nil {
		return "", "", err
	}
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func kisteCmd() script.Cmd {
	return command("run kiste", "args...", 0, func(s *script.State, args []string) (string, string, error) {
		return runProgram(s, append([]string{"kiste"}, args...))
	})
}

func codeCmd() script.Cmd {
	return command("run a program that must end with an exit code", "N program args...", 2, func(s *script.State, args []string) (string, string, error) {
		want, err := strconv.Atoi(args[0])
		if err != nil {
			return "", "", err
		}
		out, errs, err := runProgram(s, args[1:])
		var exit *exec.ExitError
		got := 0
		switch {
		case errors.As(err, &exit):
			got = exit.ExitCode()
		case err != nil:
			return out, errs, err
		}
		if got != want {
			return out, errs, fmt.Errorf("exit code %d, want %d", got, want)
		}
		return out, errs, nil
	})
}

func needCmd(t *testing.T) script.Cmd {
	return command("skip, loudly, where a power or a program is missing", "word...", 1, func(s *script.State, args []string) (string, string, error) {
		for _, word := range args {
			if i := slices.IndexFunc(host.Powers(), func(p host.Power) bool { return p.Name == word }); i >= 0 {
				need.Power(t, host.Powers()[i])
			} else {
				need.Program(t, word)
			}
		}
		return "", "", nil
	})
}

func ptyCmd() script.Cmd {
	return command("run a program under a pseudo terminal", "program args...", 1, func(s *script.State, args []string) (string, string, error) {
		return runProgram(s, append([]string{"pty"}, args...))
	})
}

// underPty is the line that runs args under script(1).
func underPty(args []string) []string {
	var line []string
	for _, a := range args {
		line = append(line, "'"+strings.ReplaceAll(a, "'", `'\''`)+"'")
	}
	return []string{"script", "-qefc", strings.Join(line, " "), "/dev/null"}
}

func kill9Cmd() script.Cmd {
	return command("run a program and kill it after a time", "duration program args...", 2, func(s *script.State, args []string) (string, string, error) {
		after, err := time.ParseDuration(args[0])
		if err != nil {
			return "", "", err
		}
		cmd, out, errs, err := program(s, args[1:])
		if err != nil {
			return "", "", err
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			return "", "", err
		}
		timer := time.AfterFunc(after, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
		defer timer.Stop()
		err = cmd.Wait()
		return out.String(), errs.String(), err
	})
}

func asuserCmd() script.Cmd {
	return command("run a program as an ordinary user with ranges of ids", "program args...", 1, func(s *script.State, args []string) (string, string, error) {
		return runProgram(s, append([]string{"asuser"}, args...))
	})
}

func diskfullCmd(t *testing.T) script.Cmd {
	return command("mount a small file system", "size dir", 2, func(s *script.State, args []string) (string, string, error) {
		dir := s.Path(args[1])
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return "", "", err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=711,size="+args[0]); err != nil {
			return "", "", err
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Errorf("unmount %s: %v", dir, err)
			}
		})
		return "", "", nil
	})
}
