package oci

import (
	"errors"

	"kiste/cli/option"
	"kiste/fault"
)

// A checkpoint is what the options of checkpoint and restore ask of CRIU.
type checkpoint struct {
	images, work, parent                                     string
	leaveRunning, tcp, tcpSkip, linkRemap, sockets, shellJob bool
	lazyPages, fileLocks, preDump, dedup                     bool
	statusFD                                                 int64
	pageServer, cgroups, lsmProfile, lsmMountContext         string
	emptyNS                                                  []string
	making                                                   making
}

func (c *checkpoint) shared() []option.Row {
	return []option.Row{
		{"--image-path", "DIR", "where the state is; else \"checkpoint\" here", option.String(&c.images)},
		{"--work-path", "DIR", "where criu writes its log", option.String(&c.work)},
		{"--tcp-established", "", "connections of TCP too", option.Bool(&c.tcp)},
		{"--ext-unix-sk", "", "sockets to processes outside too", option.Bool(&c.sockets)},
		{"--shell-job", "", "processes on a terminal of outside too", option.Bool(&c.shellJob)},
		{"--lazy-pages", "", "let memory follow when it is asked for", option.Bool(&c.lazyPages)},
		{"--file-locks", "", "locks of files too", option.Bool(&c.fileLocks)},
		{"--manage-cgroups-mode", "soft|full|strict|ignore", "what becomes of the cgroups", option.String(&c.cgroups)},
		{"--empty-ns", "network", "do not save what is in the namespace", option.Strings(&c.emptyNS)},
		{"--auto-dedup", "", "free what has been read of the images", option.Bool(&c.dedup)},
	}
}

func checkpointVerb() *verb {
	c := &checkpoint{}
	return &verb{
		name: "checkpoint", args: oneContainer, min: 1, max: 1,
		short: "save what a running container is doing, and end it",
		options: append(c.shared(),
			option.Row{"--parent-path", "DIR", "state saved before by --pre-dump, relative to --image-path", option.String(&c.parent)},
			option.Row{"--leave-running", "", "do not end it", option.Bool(&c.leaveRunning)},
			option.Row{"--tcp-skip-in-flight", "", "leave out connections that are being made", option.Bool(&c.tcpSkip)},
			option.Row{"--link-remap", "", "files without a name too", option.Bool(&c.linkRemap)},
			option.Row{"--status-fd", "N", "where criu writes a zero byte when it waits for --lazy-pages", option.Int(&c.statusFD)},
			option.Row{"--page-server", "ADDRESS:PORT", "send memory there", option.String(&c.pageServer)},
			option.Row{"--pre-dump", "", "save memory alone, and let it run", option.Bool(&c.preDump)}),
		run: func(s *session, args []string) error {
			if _, err := s.containers().Load(args[0]); err != nil {
				return err
			}
			return noCheckpoints("checkpoint container", args[0])
		},
	}
}

func restoreVerb() *verb {
	c := &checkpoint{}
	return &verb{
		name: "restore", args: oneContainer, min: 1, max: 1,
		short: "let a container go on from what checkpoint saved",
		options: append(c.shared(),
			option.Row{"-b, --bundle", "DIR", "the bundle; else the working directory", option.String(&c.making.o.Bundle)},
			option.Row{"--console-socket", "SOCKET", "send the master of the container's terminal there", path(&c.making.o.ConsoleSocket)},
			option.Row{"--pid-file", "FILE", "write the number of the container's first process there", path(&c.making.o.PidFile)},
			option.Row{"-d, --detach", "", "do not stay", option.Bool(&c.making.detach)},
			option.Row{"--no-subreaper", "", "leave orphans of the container to the host", option.Bool(&c.making.noSubreaper)},
			option.Row{"--no-pivot", "", "for a root on an initramfs", option.Bool(&c.making.o.NoPivot)},
			option.Row{"--lsm-profile", "TYPE:NAME", "another label for the processes", option.String(&c.lsmProfile)},
			option.Row{"--lsm-mount-context", "CONTEXT", "another SELinux context for mounts", option.String(&c.lsmMountContext)}),
		run: func(_ *session, args []string) error { return noCheckpoints("restore container", args[0]) },
	}
}

func noCheckpoints(what, id string) error {
	return &fault.Error{Op: what, On: id, Kind: fault.Unsupported, Err: errors.New("this version cannot do it")}
}
