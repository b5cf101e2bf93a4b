package lifecycle

import (
	"errors"
	"os"
	"slices"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/hook"
	"kiste/container/process"
)

// lateHooks are those that are run after the creation, which the document
// keeps; nil where there are none.
func lateHooks(h *specs.Hooks) *specs.Hooks {
	if h == nil || len(h.StartContainer)+len(h.Poststart)+len(h.Poststop) == 0 {
		return nil
	}
	return &specs.Hooks{StartContainer: h.StartContainer, Poststart: h.Poststart, Poststop: h.Poststop}
}

// hookState is what hooks get to read.
func (c *Container) hookState(status specs.ContainerState) specs.State {
	s := specs.State{Version: c.doc.OCIVersion, ID: c.doc.ID, Status: status, Pid: c.doc.PID, Bundle: c.doc.Bundle, Annotations: c.doc.Annotations}
	if status == specs.StateStopped {
		s.Pid = 0
	}
	return s
}

// runHooks runs those of a kind while the process, pid, waits before the pivot.
func (m *making) runHooks(kind string, pid int) error {
	launch := hook.Here(m.c.doc.Bundle, os.Environ())
	if kind == hook.CreateContainer {
		launch = hook.In(pid, m.c.doc.Rootfs, os.Environ(), joins(m.spec))
	}
	state := m.c.hookState(statusAt(kind))
	state.Pid = pid // of a process that is being restored the document does not know yet
	return hook.Run(kind, hook.Of(m.spec.Hooks, kind), state, launch)
}

// joins reports whether the container enters a namespace that is there already.
func joins(s *specs.Spec) bool {
	return s.Linux != nil && slices.ContainsFunc(s.Linux.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Path != "" })
}

// statusAt is the status that hooks before the pivot are told of. Those of
// prestart come from a time when they ran at the start, and expect what was
// true then.
func statusAt(kind string) specs.ContainerState {
	if kind == hook.Prestart {
		return specs.StateCreated
	}
	return specs.StateCreating
}

// asProcess launches a hook in the container as what the container's own
// process is going to be.
func (c *Container) asProcess(h specs.Hook, files [3]*os.File) (*process.Process, error) {
	p, err := c.Process()
	if err != nil {
		return nil, err
	}
	p.Args, p.Env, p.Terminal = h.Args, h.Env, false
	if len(p.Args) == 0 {
		p.Args = []string{h.Path}
	}
	return c.exec(ExecOptions{Process: p, Files: files, Detach: true, IgnorePaused: true}, h.Path)
}

// afterwards runs hooks whose failure is told and changes nothing: the next ones
// run as if it had not happened.
func (c *Container) afterwards(kind string, status specs.ContainerState) {
	for i, h := range hook.Of(c.doc.Hooks, kind) {
		err := hook.Run(kind, []specs.Hook{h}, c.hookState(status), hook.Here(c.doc.Bundle, os.Environ()))
		var failed *hook.Error
		if errors.As(err, &failed) {
			failed.Index = i
		}
		if err != nil {
			c.root.warn(err.Error())
		}
	}
}

// giveListener sends the listener of system calls of the container's process to
// where the document wants it.
func (m *making) giveListener(pid, fd int) error {
	state := m.c.hookState(specs.StateCreating)
	state.Pid = pid
	return sendListener(m.spec.Linux.Seccomp, pid, fd, state)
}

// giveListener is the same for one more process.
func (c *Container) giveListener(pid, fd int) error {
	s, err := c.spec()
	if err != nil {
		return err
	}
	return sendListener(s.Linux.Seccomp, pid, fd, c.hookState(specs.StateRunning))
}

func sendListener(s *specs.LinuxSeccomp, pid, fd int, state specs.State) error {
	return process.SendListener(s.ListenerPath, specs.ContainerProcessState{Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: s.ListenerMetadata, State: state}, fd)
}
