package oci

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"kiste/cli/option"
	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/sys"
)

// A checkpoint is what the options of checkpoint and restore ask of CRIU.
type checkpoint struct {
	o        lifecycle.CheckpointOptions
	statusFD int64
	emptyNS  []string
}

func (c *checkpoint) shared() []option.Row {
	return []option.Row{
		{"--image-path", "DIR", "where the state is; else \"checkpoint\" here", path(&c.o.Images)},
		{"--work-path", "DIR", "where criu writes its log", path(&c.o.Work)},
		{"--tcp-established", "", "connections of TCP too", option.Bool(&c.o.TCPEstablished)},
		{"--ext-unix-sk", "", "sockets to processes outside too", option.Bool(&c.o.ExternalUnix)},
		{"--shell-job", "", "processes on a terminal of outside too", option.Bool(&c.o.ShellJob)},
		{"--lazy-pages", "", "let memory follow when it is asked for", option.Bool(&c.o.LazyPages)},
		{"--file-locks", "", "locks of files too", option.Bool(&c.o.FileLocks)},
		{"--manage-cgroups-mode", "soft|full|strict|ignore", "what becomes of the cgroups", option.String(&c.o.Cgroups)},
		{"--empty-ns", "network", "do not save what is in the namespace", option.Strings(&c.emptyNS)},
		{"--auto-dedup", "", "free what has been read of the images", option.Bool(&c.o.AutoDedup)},
	}
}

// options are the lifecycle's, checked.
func (c *checkpoint) options() (lifecycle.CheckpointOptions, error) {
	for _, ns := range c.emptyNS {
		if ns != "network" {
			return c.o, &fault.Error{Op: "use option", On: "--empty-ns " + ns, Kind: fault.Invalid, Err: errors.New("only the network namespace can be left empty")}
		}
		c.o.EmptyNetwork = true
	}
	c.o.StatusFD = int(c.statusFD)
	if c.statusFD > 0 && !sys.Inherited(c.o.StatusFD) {
		return c.o, option.Bad("--status-fd", fmt.Errorf("descriptor %d was not passed to this program", c.statusFD))
	}
	return c.o, c.checkParent()
}

// checkParent makes sure that what was saved before is beside the images: they
// name it by a link, and may be moved together.
func (c *checkpoint) checkParent() error {
	if c.o.Parent == "" {
		return nil
	}
	if filepath.IsAbs(c.o.Parent) {
		return option.Bad("--parent-path", errors.New("--parent-path must be relative"))
	}
	images := cmp.Or(c.o.Images, "checkpoint")
	info, err := os.Stat(filepath.Join(images, c.o.Parent))
	if err == nil && !info.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return option.Bad("--parent-path", fmt.Errorf("invalid --parent-path: %w", err))
	}
	return nil
}

func checkpointVerb() *verb {
	c := &checkpoint{}
	return &verb{
		name: "checkpoint", args: oneContainer, min: 1, max: 1,
		short: "save what a running container is doing, and end it",
		options: append(c.shared(),
			option.Row{"--parent-path", "DIR", "state saved before by --pre-dump, relative to --image-path", option.String(&c.o.Parent)},
			option.Row{"--leave-running", "", "do not end it", option.Bool(&c.o.LeaveRunning)},
			option.Row{"--tcp-skip-in-flight", "", "leave out connections that are being made", option.Bool(&c.o.TCPSkip)},
			option.Row{"--link-remap", "", "files without a name too", option.Bool(&c.o.LinkRemap)},
			option.Row{"--status-fd", "N", "where criu writes a zero byte when it waits for --lazy-pages", option.Int(&c.statusFD)},
			option.Row{"--page-server", "ADDRESS:PORT", "send memory there", option.String(&c.o.PageServer)},
			option.Row{"--pre-dump", "", "save memory alone, and let it run", option.Bool(&c.o.PreDump)}),
		run: func(s *session, args []string) error {
			o, err := c.options()
			if err != nil {
				return err
			}
			container, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			return container.Checkpoint(o)
		},
	}
}

func restoreVerb() *verb {
	c, m := &checkpoint{}, &making{}
	return &verb{
		name: "restore", args: oneContainer, min: 1, max: 1,
		short: "let a container go on from what checkpoint saved",
		options: append(c.shared(),
			option.Row{"-b, --bundle", "DIR", "the bundle; else the working directory", option.String(&m.o.Bundle)},
			option.Row{"--console-socket", "SOCKET", "send the master of the container's terminal there", path(&m.o.ConsoleSocket)},
			option.Row{"--pid-file", "FILE", "write the number of the container's first process there", path(&m.o.PidFile)},
			option.Row{"-d, --detach", "", "do not stay", option.Bool(&m.detach)},
			option.Row{"--no-subreaper", "", "leave orphans of the container to the host", option.Bool(&m.noSubreaper)},
			option.Row{"--no-pivot", "", "for a root on an initramfs", option.Bool(&m.o.NoPivot)},
			option.Row{"--lsm-profile", "TYPE:NAME", "another label for the processes", option.String(&c.o.LSMProfile)},
			option.Row{"--lsm-mount-context", "CONTEXT", "another SELinux context for mounts", option.String(&c.o.LSMMount)}),
		run: func(s *session, args []string) error {
			o, err := c.options()
			if err != nil {
				return err
			}
			m.saved = &o
			n, err := s.prepare(m)
			if err != nil {
				return err
			}
			if m.detach {
				m.o.Files = [3]*os.File{s.env.In, s.env.Out, s.env.Err}
				return s.runDetached(m, n, args[0])
			}
			return s.runHere(m, n, args[0])
		},
	}
}
