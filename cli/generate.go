package cli

import (
	"kiste/cli/option"
)

// GenerateSystemd are the options of "kiste generate systemd".
type GenerateSystemd struct {
	New, Files, Name, NoHeader bool
	Format                     string
	Environment                []string
	After, Wants, Requires     []string
	Restart                    string
	RestartSec, StartLimit     int64
	StopLimit                  int64 // seconds; 0: the container's own
	Prefix, Separator          string
}

func generateSystemdCommand() *Command {
	o := &GenerateSystemd{Prefix: "container", Separator: "-"}
	return &Command{
		Name: "generate systemd", Args: "CONTAINER", Min: 1, Max: 1,
		Short: "print a unit of systemd for a container",
		Long: `The unit starts the container, and restarts it when it fails. In place of a restart policy of the container's, it is systemd's part. In the unit kiste stays in the foreground: the container's output is the journal's, and its exit code the service's. The container's cgroup is below the unit's.

With --new the unit makes the container anew at each start, with the options by which this one was made, and removes it when it has stopped; then this one is not needed any more.

As an ordinary user, put the file into ~/.config/systemd/user, and as root into /etc/systemd/system; "systemctl --user" and "loginctl enable-linger" are for the former.`,
		Options: []option.Row{
			{"--new", "", "make the container anew at each start", option.Bool(&o.New)},
			{"-n, --name", "", "call the unit by the container's name, not by its id", option.Bool(&o.Name)},
			{"-f, --files", "", "write a file here, and print its path", option.Bool(&o.Files)},
			{"--format", "json", "print an object: the unit's text by its name", option.String(&o.Format)},
			{"--no-header", "", "no comment on top", option.Bool(&o.NoHeader)},
			{"--restart-policy", "POLICY", "systemd's Restart= (on-failure)", option.String(&o.Restart)},
			{"--restart-sec", "SECONDS", "systemd's RestartSec=", option.Int(&o.RestartSec)},
			{"--start-timeout", "SECONDS", "systemd's TimeoutStartSec=", option.Int(&o.StartLimit)},
			{"-t, --time, --stop-timeout", "SECONDS", "until the container is killed when the unit is stopped", option.Int(&o.StopLimit)},
			{"-e, --env", "KEY=VALUE", "a variable of the unit", option.Strings(&o.Environment)},
			{"--after", "UNIT", "systemd's After=", option.Strings(&o.After)},
			{"--wants", "UNIT", "systemd's Wants=", option.Strings(&o.Wants)},
			{"--requires", "UNIT", "systemd's Requires=", option.Strings(&o.Requires)},
			{"--container-prefix", "WORD", "how the unit's name begins (container)", option.String(&o.Prefix)},
			{"--separator", "WORD", "between that and the container (-)", option.String(&o.Separator)},
		},
		Examples: []string{"kiste generate systemd --new --name --files web", "kiste generate systemd web > /etc/systemd/system/web.service"},
		Complete: "container",
		Heavy:    "generate systemd", HeavyOptions: o,
	}
}

// GenerateQuadlet are the options of "kiste generate quadlet".
type GenerateQuadlet struct{ User, DryRun bool }

func generateQuadletCommand() *Command {
	o := &GenerateQuadlet{}
	return &Command{
		Name: "generate quadlet", Args: "[DIR [DIR DIR]]", Max: 3,
		Short: "make systemd's units of quadlet files",
		Long: `Reads Podman's quadlet files (podman-systemd.unit(5)): .container, .volume and .network, in /etc/containers/systemd, /run/containers/systemd and /usr/share/containers/systemd, of a user in ~/.config/containers/systemd. QUADLET_UNIT_DIRS names other directories. Writes a unit for each into DIR, or prints them. It is a generator of systemd's, which calls it with three directories at each boot and "systemctl daemon-reload": see systemd.generator(7).

A key that is not known, or that Kiste has nothing for, is an error that names file and line; the other files are made all the same. .pod, .kube, .image and .build are not supported.`,
		Options: []option.Row{
			{"--user", "", "for systemd's instance of this user", option.Bool(&o.User)},
			{"--dry-run, --dryrun", "", "print the units, write none", option.Bool(&o.DryRun)},
		},
		Examples: []string{"kiste generate quadlet --dry-run", "kiste generate quadlet /run/systemd/generator"},
		Complete: "dir",
		Heavy:    "generate quadlet", HeavyOptions: o,
	}
}

// RunOptionNames are the long names of the options of "kiste run".
func RunOptionNames() []string {
	var names []string
	for _, r := range runCommand().Options {
		names = append(names, option.Names(r)...)
	}
	return names
}
