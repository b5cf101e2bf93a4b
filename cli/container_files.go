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
