package script

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"rsc.io/script"

	"kiste/internal/need"
)

// runtimeLine is the line of the OCI runtime, with a root of the script's own.
func runtimeLine(s *script.State, args []string) []string {
	work, _ := s.LookupEnv("WORK")
	return append([]string{"kiste-runtime", "--root", filepath.Join(work, "rt")}, args...)
}

// removeContainers ends what a script that failed has left running.
func removeContainers(work string) {
	for _, root := range []string{work + "/rt", work + "/user/rt"} {
		exec.Command(filepath.Join(bin, "kiste-runtime"), "--root", root, "delete", "--force", "--regex", "").Run()
	}
}

// removeAll removes the containers of kiste that a script that failed has left,
// of root and of the ordinary user, and says so: what they hold, ports and links,
// would make later scripts fail too.
func removeAll(t *testing.T, work string) {
	for _, line := range kisteLines(work) {
		kiste := func(args ...string) string {
			ctx, cancel := context.WithTimeout(context.Background(), lastRites)
			defer cancel()
			c := exec.CommandContext(ctx, line[0], append(slices.Clone(line[1:]), args...)...)
			c.Dir, c.Env, c.WaitDelay = work, environment(work), 5*time.Second
			out, _ := c.Output()
			return string(out)
		}
		if left := strings.Fields(kiste("ps", "-aq")); len(left) > 0 {
			t.Logf("removed after the failure: containers %v", strings.Fields(kiste(append([]string{"rm", "-f"}, left...)...)))
		}
	}
}

// kisteLines are the ways to start kiste on the stores that a script has made.
func kisteLines(work string) (lines [][]string) {
	kiste := filepath.Join(bin, "kiste")
	if _, err := os.Stat(work + "/lib"); err == nil {
		lines = append(lines, []string{kiste})
	}
	if _, err := os.Stat(work + "/user"); err == nil {
		if line, err := need.AsUser(work, true, kiste); err == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// workingCRIUCmd puts a criu that works on this kernel at the front of $PATH.
func workingCRIUCmd(t *testing.T) script.Cmd {
	return command("skip, loudly, where no criu works on this kernel, or not with its features", "[feature...]", 0, func(s *script.State, features []string) (string, string, error) {
		need.Program(t, "criu", "apt-get")
		find := exec.Command("../../test/criu")
		find.Stderr = os.Stderr
		dir, err := find.Output()
		if err != nil {
			need.Missing(t, "criu", fmt.Sprintf("none works on this kernel: %v", err))
		}
		at := strings.TrimSpace(string(dir))
		for _, f := range features {
			if out, err := exec.Command(filepath.Join(at, "criu"), "check", "--feature", f).CombinedOutput(); err != nil {
				need.Missing(t, f, string(out))
			}
		}
		path, _ := s.LookupEnv("PATH")
		return "", "", s.Setenv("PATH", at+":"+path)
	})
}

func runtimeCmd() script.Cmd {
	return command("run the OCI runtime, with state of the script's own", "args...", 0, func(s *script.State, args []string) (string, string, error) {
		return runProgram(s, append([]string{"runtime"}, args...))
	})
}

func toCmd() script.Cmd {
	return command("run a program whose output goes to a file, which others may have open when it ends", "file program args...", 2,
		func(s *script.State, args []string) (string, string, error) {
			return runProgram(s, append([]string{"to"}, args...))
		})
}

func eventuallyCmd() script.Cmd {
	return command("run a program again until it succeeds, for a minute at most", "program args...", 1, func(s *script.State, args []string) (out, errs string, err error) {
		for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
			if out, errs, err = runProgram(s, args); err == nil || time.Now().After(end) || s.Context().Err() != nil {
				return out, errs, err
			}
		}
	})
}

func mkbundleCmd() script.Cmd {
	return command("write a bundle with busybox, whose config.json is \"kiste-runtime spec\" without a terminal", "dir [field=JSON...]", 1,
		func(s *script.State, args []string) (string, string, error) {
			return "", "", writeBundle(s, s.Path(args[0]), args[1:])
		})
}

// writeBundle sets fields by their paths: process.args=["sh"], hostname="box";
// with + before the equal sign it adds to a list; without a value it removes.
// The word rootless among them makes the spec an ordinary user's.
func writeBundle(s *script.State, dir string, fields []string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := busyboxRoot(filepath.Join(dir, "rootfs")); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.json")
	os.Remove(config)
	line := []string{"kiste-runtime", "spec", "--bundle", dir}
	if len(fields) > 0 && fields[0] == "rootless" {
		line, fields = append([]string{"asuser"}, append(line, "--rootless")...), fields[1:]
		if err := os.Chmod(dir, 0o777); err != nil {
			return err
		}
	}
	if _, errs, err := runProgram(s, line); err != nil {
		return fmt.Errorf("%w: %s", err, errs)
	}
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	var doc map[string]any
	if err := json.Unmarshal(text, &doc); err != nil {
		return err
	}
	for _, f := range append([]string{"process.terminal=false"}, fields...) {
		if err := setField(doc, f); err != nil {
			return err
		}
	}
	if cgroups == "systemd" {
		toScope(doc)
	}
	text, err = json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(config, text, 0o644)
}

// toScope says the path of a cgroup in systemd's words.
func toScope(doc map[string]any) {
	linux, _ := doc["linux"].(map[string]any)
	if p, _ := linux["cgroupsPath"].(string); strings.HasPrefix(p, "/") {
		linux["cgroupsPath"] = ":kiste:" + p[1:]
	}
}

func setField(doc map[string]any, assignment string) error {
	path, text, given := strings.Cut(assignment, "=")
	path, add := strings.CutSuffix(path, "+")
	words := strings.Split(path, ".")
	for _, w := range words[:len(words)-1] {
		next, ok := doc[w].(map[string]any)
		if !ok {
			next = map[string]any{}
			doc[w] = next
		}
		doc = next
	}
	last := words[len(words)-1]
	if !given {
		delete(doc, last)
		return nil
	}
	var value any
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		return fmt.Errorf("%s: %w", assignment, err)
	}
	if add {
		list, _ := doc[last].([]any)
		value = append(list, value)
	}
	doc[last] = value
	return nil
}

// busyboxRoot unpacks what the images of scripts have.
func busyboxRoot(dir string) error {
	text, err := layerTar(nil)
	if err != nil {
		return err
	}
	for r := tar.NewReader(bytes.NewReader(text)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, h.Name)
		mode := os.FileMode(h.Mode & 0o777)
		switch h.Typeflag {
		case tar.TypeDir:
			if err = os.MkdirAll(path, mode); err == nil && h.Mode&0o1000 != 0 {
				err = os.Chmod(path, mode|os.ModeSticky)
			}
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeReg:
			var data []byte
			if data, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(path, data, mode)
			}
		}
		if err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
}
