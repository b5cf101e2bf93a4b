package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/snapshot"
	"kiste/kernel/cgroup"
)

func timeout(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

// limitNames are the options behind what l limits.
func limitNames(l cgroup.Limits) []string {
	var names []string
	for _, n := range []struct {
		set  bool
		name string
	}{
		{l.Memory.Limit > 0, "--memory"}, {l.Memory.Reservation > 0, "--memory-reservation"}, {l.CPU.Quota > 0, "--cpus"}, {l.CPU.Shares > 0, "--cpu-shares"},
		{l.CPU.Cpus != "", "--cpuset-cpus"}, {l.CPU.Mems != "", "--cpuset-mems"}, {l.Pids > 0, "--pids-limit"}, {l.IO.Weight > 0, "--blkio-weight"},
		{len(l.IO.ReadBPS)+len(l.IO.WriteBPS)+len(l.IO.ReadIOPS)+len(l.IO.WriteIOPS) > 0, "--device-read-bps and its kin"},
	} {
		if n.set {
			names = append(names, n.name)
		}
	}
	return names
}

// volumes finds the directories behind volumes and images, and makes what has
// to be made.
func (p *Prepared) volumes(lower []string) error {
	p.Sources = map[string]string{}
	if p.VolumeNames == nil {
		p.VolumeNames = map[string]string{}
	}
	for i := range p.Result.Volumes {
		v := &p.Result.Volumes[i]
		if err := p.volume(v, lower); err != nil {
			return err
		}
	}
	if err := p.makeSources(); err != nil {
		return err
	}
	return errors.Join(p.ownSources(), p.labelSources())
}

func (p *Prepared) volume(v *bundle.Volume, lower []string) error {
	m := &p.Result.Spec.Mounts[v.Index]
	switch v.Mount.Type {
	case "volume":
		used, err := p.useVolume(v, lower)
		if err != nil {
			return err
		}
		used.mount(m)
		addSubpath(m, v.Mount.Subpath)
	case "image":
		if err := p.mountImage(m, v.Mount); err != nil {
			return err
		}
	case "shm":
		other, err := p.e.Find(v.Mount.Source)
		if err != nil {
			return err
		}
		m.Type, m.Source = "bind", fmt.Sprintf("/proc/%d/root/dev/shm", other.State.PID)
	}
	p.Sources[v.Mount.Target] = m.Source
	return nil
}

// addSubpath binds only what lies below the source.
func addSubpath(m *specs.Mount, path string) {
	if path != "" {
		m.Options = append(slices.Clip(m.Options), "subpath="+path)
	}
}

// mountImage mounts the layers of an image, or a part of them, read-only: a
// single one by a bind, several by an overlay.
func (p *Prepared) mountImage(m *specs.Mount, wish bundle.Mount) error {
	entry, err := catalog.Get(p.e.Store, wish.Source)
	if err != nil {
		return err
	}
	mounts, err := snapshot.Open(p.e.Store).Mounts(entry.Layers, "", "")
	if err != nil {
		return err
	}
	for _, layer := range entry.Layers {
		if !slices.Contains(p.Layers, layer) {
			p.Layers = append(slices.Clip(p.Layers), layer)
		}
	}
	lower := mounts[0].Lower
	if mounts[0].Type == "bind" {
		lower = []string{mounts[0].Source}
	}
	if wish.Subpath != "" {
		if lower, err = snapshot.Parts(lower, wish.Subpath); err != nil {
			return &fault.Error{Op: "mount image", On: wish.Source, Err: err, Hint: "image-subpath names a path inside the image"}
		}
	}
	if len(lower) == 1 && p.mountLabel(false) != "" && isDir(lower[0]) && !p.o.DryRun {
		points, err := p.e.pointsLayer()
		if err != nil {
			return err
		}
		lower = append(lower, filepath.Join(points, "proc")) // an empty one: a bind has no label of the container's
	}
	if err := p.labelLayers(lower); err != nil {
		return err
	}
	if len(lower) == 1 {
		m.Type, m.Source = "bind", lower[0]
		return nil
	}
	// Only binds are recursive or private.
	m.Type, m.Source, m.Options = "overlay", "overlay", []string{"ro", "nodev"}
	if len(m.UIDMappings) > 0 {
		m.Options = append(m.Options, "idmap")
	}
	for _, layer := range lower {
		m.Options = append(m.Options, "lowerdir+="+layer)
	}
	if os.Geteuid() != 0 {
		m.Options = append(m.Options, "userxattr")
	}
	return nil
}

// makeSources makes directories that -v wants and the host does not have.
func (p *Prepared) makeSources() error {
	if p.o.DryRun {
		return nil
	}
	for _, m := range p.Wishes.Mounts {
		if m.Type != "bind" {
			continue
		}
		_, err := os.Stat(m.Source)
		if errors.Is(err, fs.ErrNotExist) && m.CreateSource {
			err = os.MkdirAll(m.Source, 0o755)
		}
		if err != nil {
			return &fault.Error{Op: "bind", On: m.Source, Err: err, Hint: "bind source path does not exist: make it first, or use -v, which makes a directory"}
		}
	}
	return nil
}

// embedded is an image made of this program itself: it holds kiste, which
// tells what it sees.
func (p *Prepared) embedded(name string) ([]string, error) {
	if name != "hello" {
		return nil, &fault.Error{Op: "find image", On: "embedded:" + name, Kind: fault.NotFound, Hint: "there is one: embedded:hello"}
	}
	p.Image = bundle.ImageConfig{Entrypoint: []string{"/kiste"}, Cmd: []string{"hello"}}
	dir := filepath.Join(p.e.Store.Lib, "embedded", "hello")
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "kiste")
	have, err := os.Stat(file)
	if err == nil && have.Size() == self.Size() && have.ModTime().Equal(self.ModTime()) || p.o.DryRun {
		return []string{dir}, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return []string{dir}, copyProgram(file, self.ModTime())
}

func copyProgram(file string, stamp time.Time) error {
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.CreateTemp(filepath.Dir(filepath.Dir(file)), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Chmod(0o755), out.Close(), os.Chtimes(out.Name(), stamp, stamp))
	if err != nil {
		return err
	}
	return os.Rename(out.Name(), file)
}

// A StartError says why a container's program could not be started: Code is
// Docker's exit code.
type StartError struct {
	Code int
	Err  error
}

func (e *StartError) Error() string { return e.Err.Error() }

func (e *StartError) Unwrap() error { return e.Err }

// explain says in a sentence why a start failed.
func (p *Prepared) explain(err error) error {
	var step *process.StepError
	if !errors.As(err, &step) {
		return &StartError{125, err}
	}
	if step.Call != nil && (step.Call.Name == "" || step.Call.Name == "execve") {
		return p.explainExec(step)
	}
	f := &fault.Error{Op: "run", On: p.Name, Err: err}
	f.Hint = hintOf(step)
	return &StartError{125, f}
}

const noMemory = "the limit of memory is too small to start a program, or the host has none left"

// hintOf is what usually helps when a step fails so.
func hintOf(s *process.StepError) string {
	switch {
	case s.Step.Act != nil && s.Step.Act.Kind == plan.ActRlimit:
		return "only a process with CAP_SYS_RESOURCE raises a limit: ask for less"
	case errors.Is(s.Err, syscall.ENOMEM):
		return noMemory
	case errors.Is(s.Err, syscall.ENOSPC):
		return "the disk, or the limit of user namespaces (sysctl user.max_*), is full"
	case fault.HintOf(s.Err) != "":
		return fault.HintOf(s.Err)
	case fault.KindOf(s.Err) == fault.Denied:
		return `"kiste doctor" lists what this host can do`
	}
	return ""
}

// explainExec says why a program could not be executed, in Docker's words.
func (p *Prepared) explainExec(s *process.StepError) error {
	program := p.Result.Spec.Process.Args[0]
	f := &fault.Error{Op: "run", On: program, Err: s.Err}
	var errno syscall.Errno
	errors.As(s.Err, &errno)
	switch {
	case errno == syscall.ENOENT && strings.Contains(program, "/"):
		f.Kind, f.Err = fault.NotFound, errors.New("no such file or directory")
		f.Hint = "the image has no such file, or lacks the interpreter that it names"
	case errno == syscall.ENOENT || errno == syscall.ENOTDIR:
		f.Kind, f.Err = fault.NotFound, errors.New("executable file not found in $PATH")
		f.Hint = "the image has no such program; its PATH is " + p.Result.SearchPath
	case errno == syscall.EACCES:
		f.Kind, f.Err = fault.Denied, errors.New("permission denied")
		f.Hint = "it is not executable for the container's user (chmod +x), or a directory above it is closed, or it lies on a noexec mount"
		return &StartError{126, f}
	case errno == syscall.ENOEXEC:
		f.Kind, f.Err = fault.Unsupported, errors.New("exec format error")
		f.Hint = p.wrongArchitecture()
		return &StartError{126, f}
	case errno == syscall.ENOMEM:
		f.Hint = noMemory
		return &StartError{125, f}
	default:
		return &StartError{126, f}
	}
	return &StartError{127, f}
}

func (p *Prepared) wrongArchitecture() string {
	if a := p.Image.Architecture; a != "" && a != hostArchitecture() {
		return fmt.Sprintf("the image is for %s and this host is %s: pull it with --platform linux/%s", a, hostArchitecture(), hostArchitecture())
	}
	return "it is neither a program for " + hostArchitecture() + " nor a script that begins with #!"
}

// mountPoints are what every container has something mounted on. Directories
// end in a slash.
var mountPoints = []string{"dev/", "dev/pts/", "dev/shm/", "dev/mqueue/", "proc/", "sys/", "etc/", "etc/hosts", "etc/hostname", "etc/resolv.conf"}

// pointsLayer is the layer that lies on every image: the mount points, made
// once. To make a file of an overlay at each start costs a copy of its
// directory, a millisecond for all; and what a hostile image has in their
// place, links to elsewhere, is covered.
func (e *Engine) pointsLayer() (string, error) {
	dir := filepath.Join(e.Store.Lib, "snapshots", "points")
	if _, err := os.Lstat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return "", err
	}
	made, err := os.MkdirTemp(filepath.Dir(dir), ".tmp-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(made)
	for _, point := range mountPoints {
		path := filepath.Join(made, point)
		if strings.HasSuffix(point, "/") {
			err = os.Mkdir(path, 0o755)
		} else {
			err = os.WriteFile(path, nil, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	if err := os.Chmod(made, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(made, dir); err != nil && !isDir(dir) {
		return "", err
	}
	return dir, nil
}
