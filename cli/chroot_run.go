package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/host"
	"kiste/internal/sys"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
)

// chrootWords are what "kiste chroot run" is told.
type chrootWords struct {
	root     chroot.Root
	command  chroot.Command
	binds    []string
	env      []string
	clearEnv bool
	userns   bool
}

func chrootRunCommand() *Command {
	var w chrootWords
	return &Command{
		Name:  "chroot run",
		Args:  "DIR [COMMAND [ARG...]]",
		Short: "run a command with DIR as its root",
		Long: `Becomes COMMAND, $SHELL or /bin/sh without one, with DIR as its root and /proc, /sys (read-only), /dev, /run, /tmp and, where DIR has one, the host's resolv.conf in place: enough to install a system into DIR, or to repair one.

All mounts are in a mount namespace of its own and end with the last process in it: nothing stays mounted on the host. DIR may be hostile: its symbolic links lead nowhere outside.

An ordinary user is root in a user namespace, with the ranges of /etc/subuid and /etc/subgid where there are some; a parent process then stays until COMMAND ends.

The exit code is the command's; 125 if DIR could not be entered, 126 if the command cannot be executed, 127 if it is not there.`,
		Examples: []string{
			"kiste chroot run /mnt -- apt-get install grub-pc",
			"kiste chroot run --ro --bind /srv/data:/data:ro ./debian",
			"kiste chroot run --user nobody --workdir /tmp ./debian -- id",
		},
		Options: []option.Row{
			{"-b, --bind", "SRC[:DST[:ro]]", "mount a file or directory of the host inside", option.Strings(&w.binds)},
			{"--ro, --read-only", "", "DIR cannot be written, nor what is mounted below it", option.Bool(&w.root.ReadOnly)},
			{"--no-mounts, --plain", "", "no /proc, /sys, /dev and so on", option.Bool(&w.root.Plain)},
			{"-u, --user", "USER[:GROUP]", "become this user, by number, or by name as DIR knows it", option.String(&w.command.User)},
			{"-w, --workdir", "PATH", "working directory inside; otherwise /", option.String(&w.command.Workdir)},
			{"-e, --env", "KEY[=VALUE]", "set a variable, or pass one on", option.Strings(&w.env)},
			{"--clear-env", "", "start with PATH, HOME and TERM alone", option.Bool(&w.clearEnv)},
			{"-N, --unprivileged", "", "use a user namespace though you are root", option.Bool(&w.userns)},
		},
		Min: 1, Max: -1, Rest: true,
		Complete: "dir",
		Run: func(_ context.Context, _ *Env, args []string) error {
			return w.run(args)
		},
	}
}

func (w *chrootWords) run(args []string) error {
	w.root.Dir, w.command.Args = args[0], args[1:]
	if len(w.command.Args) > 0 && w.command.Args[0] == "--" {
		w.command.Args = w.command.Args[1:]
	}
	if len(w.command.Args) == 0 {
		w.command.Args = []string{shell()}
	}
	for _, b := range w.binds {
		m, err := chroot.ParseBind(b)
		if err != nil {
			return WithCode(125, err)
		}
		if m.Source, err = filepath.Abs(m.Source); err != nil {
			return WithCode(125, err)
		}
		w.root.Binds = append(w.root.Binds, m)
	}
	inside := os.Getenv(secondTime) != ""
	os.Unsetenv(secondTime)
	if !inside && (w.userns || os.Geteuid() != 0) {
		return runUserns()
	}
	return w.enter()
}

func shell() string {
	if s := os.Getenv("SHELL"); s != "" {
		return s
	}
	return "/bin/sh"
}

// enter becomes the command.
func (w *chrootWords) enter() error {
	w.command.Env = w.environment()
	w.root.InUserns = host.InUserns()
	err := w.root.Enter()
	if err == nil {
		err = w.command.Prepare()
	}
	if err != nil {
		return WithCode(125, err)
	}
	err = w.command.Exec()
	if fault.KindOf(err) == fault.NotFound {
		return WithCode(127, err)
	}
	return WithCode(126, err)
}

// environment is what the command gets; a later variable wins.
func (w *chrootWords) environment() []string {
	env := os.Environ()
	if w.clearEnv {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "TERM=" + os.Getenv("TERM")}
	}
	for _, kv := range w.env {
		key, _, has := strings.Cut(kv, "=")
		if !has {
			value, set := os.LookupEnv(key)
			if !set {
				continue
			}
			kv = key + "=" + value
		}
		env = slices.DeleteFunc(env, func(old string) bool { return strings.HasPrefix(old, key+"=") })
		env = append(env, kv)
	}
	return env
}

// secondTime is the variable that tells runUserns's command that it is in the
// user namespace; what it becomes does not see it.
const secondTime = "KISTE_CHROOT_IN_USERNS"

// runUserns does the same command once more as root of a user namespace.
func runUserns() error {
	uids, gids, err := namespace.Subordinate(strconv.Itoa(os.Geteuid()))
	if err != nil || len(uids) == 0 || len(gids) == 0 {
		uids, gids = nil, nil
	}
	o := namespace.Options{
		UIDs: namespace.RootMap(uint32(os.Geteuid()), uids),
		GIDs: namespace.RootMap(uint32(os.Getegid()), gids),
		Args: append([]string{sys.SelfExe}, os.Args[1:]...),
	}
	for _, k := range namespace.Kinds() {
		if k.Name == "user" {
			o.New = append(o.New, k)
		}
	}
	os.Setenv(secondTime, "1")
	code, err := namespace.Run(o)
	if err != nil {
		return WithCode(125, err)
	}
	return ended(code, nil)
}
