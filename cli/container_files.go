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
