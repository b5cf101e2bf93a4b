package cli

import (
	"kiste/cli/option"
)

func diffCommand() *Command {
	return &Command{
		Name:     "diff",
		Args:     "CONTAINER",
		Short:    "show what a container has changed of its image",
		Long:     "Shows the files and directories that a container has added (A), changed (C) or deleted (D) since it was made, whether it runs or not. What lies on its volumes and other mounts is not of its image and is not shown.",
		Examples: []string{"kiste diff web"},
		Min:      1, Max: 1,
		Complete: "container",
		Heavy:    "diff",
	}
}

// ExportOptions are the options of "kiste export".
type ExportOptions struct{ Output string }

func exportCommand() *Command {
	o := &ExportOptions{}
	return &Command{
		Name:  "export",
		Args:  "CONTAINER",
		Short: "write a container's files as a tar",
		Long:  "Writes the root file system of a container as a tar, to standard output or to a file. Of volumes and other mounts it has the empty mount points.",
		Options: []option.Row{
			{"-o, --output", "FILE", "write to FILE, in place of standard output", option.String(&o.Output)},
		},
		Examples: []string{"kiste export -o web.tar web", "kiste export web | tar -t"},
		Min:      1, Max: 1,
		Complete: "container",
		Heavy:    "export", HeavyOptions: o,
	}
}

// CopyOptions are the options of "kiste cp".
type CopyOptions struct{ Archive, Follow, Quiet bool }

func cpCommand() *Command {
	o := &CopyOptions{}
	return &Command{
		Name:  "cp",
		Args:  "CONTAINER:SRC DEST|- or SRC|- CONTAINER:DEST",
		Short: "copy files between a container and the host",
		Long: `Copies a file, or a directory with all that is in it, whether the container runs or not. Paths in a container begin at its root; its volumes and other mounts are as its processes see them. "SRC/." is what is in a directory, without the directory.

With "-" a tar is written to standard output, or read from standard input and unpacked into a directory.

Into a container files keep the numbers of their owners. On the host they belong to who copies; with --archive, to their owners.`,
		Options: []option.Row{
			{"-a, --archive", "", "keep owners on the host, too", option.Bool(&o.Archive)},
			{"-L, --follow-link", "", "copy what a link SRC leads to", option.Bool(&o.Follow)},
			{"-q, --quiet", "", "say nothing when it is done, as where standard output is no terminal", option.Bool(&o.Quiet)},
		},
		Examples: []string{"kiste cp web:/etc/nginx/nginx.conf .", "kiste cp site/. web:/srv", "kiste cp web:/var/log - | tar -t"},
		Min:      2, Max: 2,
		Complete: "container",
		Heavy:    "cp", HeavyOptions: o,
	}
}

// CommitOptions are the options of "kiste commit".
type CommitOptions struct {
	Author, Message string
	Changes         []string
	Pause           bool
}

func commitCommand() *Command {
	o := &CommitOptions{Pause: true}
	return &Command{
		Name:  "commit",
		Args:  "CONTAINER [REPOSITORY[:TAG]]",
		Short: "make an image of what a container has changed",
		Long:  "Makes an image of the container's image and what the container has changed of it, with the options that the container was made with, and shows its ID. What lies on volumes and other mounts is not in it. A container that runs stands still meanwhile, where it has a cgroup that can be frozen.",
		Options: []option.Row{
			{"-a, --author", "TEXT", "say who made it", option.String(&o.Author)},
			{"-c, --change", "INSTRUCTION", "apply a Dockerfile instruction to the image: CMD, ENV, USER …", option.Strings(&o.Changes)},
			{"-m, --message", "TEXT", "say in the image's history what it is", option.String(&o.Message)},
			{"-p, --pause", "", "let the container stand still meanwhile (default; --pause=false does not)", option.Bool(&o.Pause)},
			{"--no-pause", "", "let it run", func(string) error { o.Pause = false; return nil }},
		},
		Examples: []string{"kiste commit -m 'with vim' web web:vim", `kiste commit -c 'CMD ["sh"]' -c 'ENV DEBUG=1' web web:debug`},
		Min:      1, Max: 2,
		Complete: "container",
		Heavy:    "commit", HeavyOptions: o,
	}
}

// PauseCommand is the hidden command that a commit is helped by.
const PauseCommand = "__pause"

func pauseHelper() *Command {
	return &Command{
		Name:   PauseCommand,
		Args:   "CGROUP",
		Short:  "freeze a cgroup until standard input ends",
		Hidden: true,
		Min:    1, Max: 1,
		Heavy: PauseCommand,
	}
}
