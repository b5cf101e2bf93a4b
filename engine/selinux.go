package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/privilege/selinux"
)

// selinux is what the host's policy has for the container, with a level that no other
// container has. On a host without SELinux it is a look at one file.
func (p *Prepared) selinux() (*bundle.SELinux, error) {
	if !host.SELinux.Have() {
		return nil, nil
	}
	labels, ok := selinux.Containers()
	if !ok {
		return nil, nil
	}
	p.layerLabel = labels.Layer.At(selinux.Shared).String()
	level, err := p.level()
	if err != nil {
		return nil, err
	}
	s := &bundle.SELinux{Labels: labels, Level: level}
	for _, n := range []bundle.Namespace{p.Wishes.PID, p.Wishes.IPC} {
		if n.Kind != bundle.Container {
			continue
		}
		other, err := p.running(n.Of)
		if err != nil {
			return nil, err
		}
		s.Joined = append(s.Joined, other.Result.Spec.Process.SelinuxLabel)
	}
	return s, nil
}

// levels is the directory of claims on levels, links to ids of containers: they are as lasting
// as the files that have the level.
func (e *Engine) levels() string { return filepath.Join(e.Store.Lib, "levels") }

// level is the container's own. One that the user gives may be that of others, too; nobody else gets it.
func (p *Prepared) level() (string, error) {
	given := p.Wishes.Security.GivenLevel()
	switch {
	case given != "":
		_, err := p.claimLevel(given)
		return given, err
	case p.Level != "":
		return p.Level, nil
	}
	start, err := strconv.ParseUint(p.ID[:14], 16, 64)
	if err != nil {
		return "", err
	}
	for i := range uint64(10000) {
		level := selinux.Level(start + i)
		if p.o.DryRun {
			return level, nil
		}
		if mine, err := p.claimLevel(level); mine || err != nil {
			return level, err
		}
	}
	return "", &fault.Error{Op: "find categories of SELinux", Kind: fault.Unavailable, Err: errors.New("all are taken"), Hint: "remove containers: kiste container prune"}
}

// claimLevel makes a level the container's, unless another one has it.
func (p *Prepared) claimLevel(level string) (bool, error) {
	if p.o.DryRun || !strings.HasPrefix(level, "s0:c") || strings.Contains(level, "/") || len(level) > 64 {
		return false, nil // not one that another container could get
	}
	if err := os.MkdirAll(p.e.levels(), 0o700); err != nil {
		return false, err
	}
	claim := filepath.Join(p.e.levels(), level)
	mine, err := p.e.claimIDs(claim, p.ID)
	if mine {
		p.Level = level
	}
	return mine, err
}

// freeLevel gives a container's level back.
func (e *Engine) freeLevel(c *Container) {
	if c.Level == "" {
		return
	}
	claim := filepath.Join(e.levels(), c.Level)
	if owner, _ := os.Readlink(claim); owner == c.ID {
		os.Remove(claim)
	}
}

// LabelCommand is the hidden command that calls Label.
const LabelCommand = "__label"

// Label does what LabelCommand's arguments say.
func Label(args []string) error {
	if len(args) != 3 {
		return &fault.Error{Op: "label files", Kind: fault.Invalid, Err: errors.New("want DIR BELOW LABEL")}
	}
	return labelTree(args[0], args[1], args[2])
}

// mountLabel is the label of the container's files; empty: none. The shared one is that of
// all containers.
func (p *Prepared) mountLabel(shared bool) string {
	label := p.Result.Spec.Linux.MountLabel
	if c, err := selinux.Parse(label); err == nil && shared {
		return c.At(selinux.Shared).String()
	}
	return label
}

// labelSources labels what is bound with "z", for all containers, and "Z", for this one alone.
func (p *Prepared) labelSources() error {
	for _, m := range p.Wishes.Mounts {
		label := p.mountLabel(m.Relabel == "z")
		if m.Relabel == "" || label == "" || p.o.DryRun {
			continue
		}
		source := p.Sources[m.Target]
		if source == "" {
			source = m.Source
		}
		if err := relabel(source, m.Subpath, label); err != nil {
			return &fault.Error{Op: "label for the container", On: source, Err: err, Hint: "leave out the option " + m.Relabel + ", or bind a directory that is for containers alone"}
		}
	}
	return nil
}

// relabel labels a tree that somebody binds.
func relabel(source, below, label string) error {
	fd, err := openSource(source, below)
	if err != nil {
		return err
	}
	path, err := os.Readlink(sys.FDPath(fd)) // as it is, without links
	sys.Close(fd)
	if err == nil {
		err = selinux.MayRelabel(path, host.Homes()...)
	}
	if err != nil {
		return err
	}
	return labelAsRoot(source, below, label)
}

// labelAsRoot labels a tree, in which an ordinary user has files of his containers' users.
func labelAsRoot(source, below, label string) error {
	if os.Geteuid() != 0 {
		return asMappedRoot(LabelCommand, source, below, label)
	}
	return labelTree(source, below, label)
}

// labelTree labels all of a tree, the top last: one that has the label is done. What keeps no labels
// is left as it is, as with Docker and Podman.
func labelTree(source, below, label string) error {
	fd, err := openSource(source, below)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return ignoreUnlabelled(eachBelow(fd, func(fd, _, _ int) error {
		if selinux.Get(fd) == label {
			return nil
		}
		return selinux.Set(fd, label)
	}))
}

func ignoreUnlabelled(err error) error {
	if errors.Is(err, syscall.ENOTSUP) {
		return nil
	}
	return err
}

// labelLayers labels what the store has of images, once. The overlay gives all its files the container's
// label, but what is mapped is a file of a layer, of which the kernel also asks the layer's own. What
// lies elsewhere, for rootfs:DIR, is its owner's to label.
func (p *Prepared) labelLayers(lower []string) error {
	for _, dir := range lower {
		if p.layerLabel == "" || p.o.DryRun || !below(dir, p.e.Store.Lib) {
			continue
		}
		if err := labelUnlessOf(dir, p.layerLabel); err != nil {
			return &fault.Error{Op: "label layer", On: dir, Err: err, Hint: "--security-opt label=disable needs no labels"}
		}
	}
	return nil
}

// labelUpper sees to it that what others put into the container's changes, such as cp, is a container's.
func (p *Prepared) labelUpper(dir string) error {
	label := p.mountLabel(false)
	if label == "" || p.o.DryRun {
		return nil
	}
	return labelUnlessOf(dir, label)
}

// labelUnlessOf labels a tree whose top has another type.
func labelUnlessOf(dir, label string) error {
	fd, err := openSource(dir, "")
	if err != nil {
		return err
	}
	has, err := selinux.Parse(selinux.Get(fd))
	sys.Close(fd)
	if want, _ := selinux.Parse(label); err == nil && has.Type == want.Type {
		return nil
	}
	return labelAsRoot(dir, "", label)
}

// labelFile gives a file that the engine has made the label of the container's others.
func (p *Prepared) labelFile(path string) error {
	label := p.mountLabel(false)
	if label == "" || path == "" || p.o.DryRun {
		return nil
	}
	return labelTree(path, "", label)
}

// labelVolume gives a volume that the engine has made, and perhaps filled, a label by which all
// containers have it, unless it has one of some container's: that is somebody's wish, with Z.
func (p *Prepared) labelVolume(dir string) error {
	label := p.mountLabel(true)
	if label == "" {
		return nil
	}
	if err := labelUnlessOf(dir, label); err != nil {
		return fmt.Errorf("label its files: %w", err)
	}
	return nil
}

// A PipeFunc makes a pipe, as os.Pipe does.
type PipeFunc func() (r, w *os.File, err error)

// Pipe makes pipes that the container may use under its label: a process that SELinux keeps
// in some categories may not use those of one that has all.
func (p *Prepared) Pipe() PipeFunc { return pipeFor(p.Result.Spec, p.work) }

// PipeOf is Pipe of a container that runs.
func (e *Engine) PipeOf(query string) PipeFunc {
	if !host.SELinux.Have() {
		return sys.Pipe
	}
	c, err := e.Find(query)
	if err != nil {
		return sys.Pipe // the exec says why
	}
	return pipeFor(c.Result.Spec, e.Store.Running(c.ID))
}

// pipeFor is sys.Pipe where the container has no label. Else the pipe has a name in dir for a moment,
// since only what has one is labelled.
func pipeFor(spec *specs.Spec, dir string) PipeFunc {
	if spec.Process.SelinuxLabel == "" {
		return sys.Pipe
	}
	return func() (r, w *os.File, err error) {
		path := filepath.Join(dir, "pipe-"+newID())
		if err := sys.Mkfifo(path, 0o600); err != nil {
			return nil, nil, err
		}
		defer os.Remove(path)
		both, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, nil, err
		}
		defer both.Close()
		if err := selinux.Set(int(both.Fd()), spec.Linux.MountLabel); err != nil {
			return nil, nil, err
		}
		if r, err = sys.OpenPlain(path, os.O_RDONLY, 0); err != nil {
			return nil, nil, err
		}
		if w, err = sys.OpenPlain(path, os.O_WRONLY, 0); err != nil {
			r.Close()
			return nil, nil, err
		}
		return r, w, nil
	}
}
