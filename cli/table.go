package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
)

// A row is a command by name; its constructor is called when it is needed, so
// that a start pays for one command and not for all. A row without a
// constructor is a heading of "kiste help".
type row struct {
	name string
	new  func() *Command
}

// table is every command, in the order in which "kiste help" lists them, by
// group. It is a function, since "help" itself, a row, reads it.
func table() []row {
	return []row{
		{"Containers", nil},
		{"run", runCommand},
		{"create", createCommand},
		{"start", startCommand},
		{"stop", stopCommand},
		{"restart", restartCommand},
		{"kill", killCommand},
		{"pause", pauseCommand},
		{"unpause", unpauseCommand},
		{"attach", attachCommand},
		{"exec", execCommand},
		{"logs", logsCommand},
		{"why", whyCommand},
		{"top", topCommand},
		{"wait", waitCommand},
		{"port", portCommand},
		{"rename", renameCommand},
		{"update", updateCommand},
		{"stats", statsCommand},
		{"ps", psCommand},
		{"inspect", inspectCommand},
		{"container inspect", containerInspectCommand},
		{"rm", rmCommand},
		{"container prune", containerPruneCommand},
		{"commit", commitCommand},
		{"cp", cpCommand},
		{"diff", diffCommand},
		{"export", exportCommand},

		{"Images", nil},
		{"pull", pullCommand},
		{"import", importCommand},
		{"images", imagesCommand},
		{"tag", tagCommand},
		{"rmi", rmiCommand},
		{"history", historyCommand},
		{"image inspect", imageInspectCommand},
		{"image prune", imagePruneCommand},

		{"Volumes", nil},
		{"volume create", volumeCreateCommand},
		{"volume ls", volumeListCommand},
		{"volume inspect", volumeInspectCommand},
		{"volume rm", volumeRemoveCommand},
		{"volume prune", volumePruneCommand},
		{"volume export", volumeExportCommand},
		{"volume import", volumeImportCommand},

		{"Networks", nil},
		{"network create", networkCreateCommand},
		{"network ls", networkListCommand},
		{"network inspect", networkInspectCommand},
		{"network rm", networkRemoveCommand},
		{"network prune", networkPruneCommand},
		{"network connect", networkConnectCommand},
		{"network disconnect", networkDisconnectCommand},

		{"Services of systemd", nil},
		{"generate systemd", generateSystemdCommand},
		{"generate quadlet", generateQuadletCommand},

		{"The pieces, one by one", nil},
		{"chroot run", chrootRunCommand},
		{"cgroup run", cgroupRunCommand},
		{"cgroup set", cgroupSetCommand},
		{"cgroup show", cgroupShowCommand},
		{"cgroup freeze", cgroupFreezeCommand},
		{"cgroup thaw", cgroupThawCommand},
		{"cgroup kill", cgroupKillCommand},
		{"cgroup remove", cgroupRemoveCommand},
		{"network run", networkRunCommand},
		{"namespace run", namespaceRunCommand},
		{"namespace enter", namespaceEnterCommand},
		{"namespace list", namespaceListCommand},
		{"namespace pin", namespacePinCommand},
		{"privilege run", privilegeRunCommand},
		{"privilege show", privilegeShowCommand},

		{"Kiste itself", nil},
		{"events", eventsCommand},
		{"system df", systemDfCommand},
		{"system prune", systemPruneCommand},
		{"gc", gcCommand},
		{"doctor", doctorCommand},
		{"info", infoCommand},
		{"version", versionCommand},
		{"hello", helloCommand},
		{"help", helpCommand},
		{"completion", completionCommand},
		{"man", manCommand},
		{"__complete", completeCommand},
		{"__version", shortVersionCommand},
		{engine.FillCommand, fillCommand},
		{engine.OwnCommand, ownCommand},
		{engine.LabelCommand, labelCommand},
		{PauseCommand, pauseHelper},
		{engine.MonitorCommand, monitorCommand},
		{engine.Resolver.Command, resolverCommand},
		{engine.Proxy.Command, proxyCommand},
		{engine.HoldCommand, holdCommand},
		{engine.UserStackCommand, userStackCommand},
		{engine.CompressCommand, compressCommand},
		{engine.DecompressCommand, decompressCommand},
		{engine.ConnectCommand, connectCommand},
	}
}

// An alias is another name for a command: Docker's longer names and what
// people type everywhere.
type alias struct{ name, means string }

// aliases has a row for every alias; what each means stands in table.
func aliases() []alias {
	all := shortAliases()
	for _, g := range groups() {
		all = append(all, g.aliases()...)
	}
	rows := table()
	return slices.DeleteFunc(all, func(a alias) bool { return !isNamed(rows, a.means) })
}

func shortAliases() []alias {
	return []alias{
		{"-h", "help"},
		{"--help", "help"},
		{"-v", "__version"},
		{"--version", "__version"},
		{"network list", "network ls"},
		{"network remove", "network rm"},
	}
}

// meaning is the command that an alias stands for, or "". It looks into one
// group only: every start goes this way.
func meaning(name string) string {
	all := shortAliases()
	noun, _, _ := strings.Cut(name, " ")
	for _, g := range groups() {
		if g.noun == noun {
			all = g.aliases()
		}
	}
	for _, a := range all {
		if a.name == name {
			return a.means
		}
	}
	return ""
}

// A group is one of Docker's nouns, and the commands that can be said with it:
// "container stop" for stop, where there is one, and "container ls" for ps.
type group struct{ noun, verbs string }

func (g *group) aliases() []alias {
	var all []alias
	for verb := range strings.FieldsSeq(g.verbs) {
		name, means, renamed := strings.Cut(verb, "=")
		if !renamed {
			means = name
		}
		all = append(all, alias{g.noun + " " + name, means})
	}
	return all
}

func groups() []group {
	return []group{
		{"container", "run create start stop restart kill pause unpause wait rm remove=rm ls=ps list=ps ps rename update logs attach exec top stats diff cp export commit port"},
		{"image", "pull push build import load save ls=images list=images tag rm=rmi remove=rmi history"},
		{"system", "events info"},
	}
}

// commands is table without its headings.
func commands() []row {
	return slices.DeleteFunc(table(), func(r row) bool { return r.new == nil })
}

// find takes the longest command name, or alias, off the front of args. Nil
// without an error: args name a group, whose verbs are to be listed.
func find(args []string) (*Command, []string, error) {
	rows := table()
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		if c := named(rows, name); c != nil {
			return c, args[words:], nil
		}
		if c := named(rows, meaning(name)); c != nil {
			return c, args[words:], nil
		}
	}
	if isGroup(args) {
		return nil, nil, nil
	}
	return nil, nil, unknown(args)
}

func named(rows []row, name string) *Command {
	for _, r := range rows {
		if r.new != nil && r.name == name {
			return r.new()
		}
	}
	return nil
}

func isNamed(rows []row, name string) bool {
	return slices.ContainsFunc(rows, func(r row) bool { return r.new != nil && r.name == name })
}

// isGroup says whether args are a group alone, or a group and a request for
// help.
func isGroup(args []string) bool {
	if len(args) == 2 && args[1] != "--help" && args[1] != "-h" || len(args) > 2 {
		return false
	}
	return len(args) > 0 && len(verbs(args[0])) > 0
}

// verbs are the names of the group's commands, aliases among them.
func verbs(group string) []string {
	var names []string
	for _, r := range commands() {
		if strings.HasPrefix(r.name, group+" ") {
			names = append(names, r.name)
		}
	}
	for _, a := range aliases() {
		if strings.HasPrefix(a.name, group+" ") {
			names = append(names, a.name)
		}
	}
	return names
}

// unknown is the error for words that name no command. It suggests the
// nearest name there is.
func unknown(args []string) error {
	typed, candidates := args[0], allNames()
	if group := verbs(args[0]); len(group) > 0 {
		typed, candidates = args[0]+" "+args[1], group
	}
	err := &fault.Error{Op: "find command", On: typed, Kind: fault.Invalid, Err: fmt.Errorf("there is no such command")}
	if near := option.Nearest(typed, candidates); near != "" {
		err.Hint = fmt.Sprintf("did you mean %q? \"kiste help\" lists all commands", near)
	} else {
		err.Hint = `"kiste help" lists all commands`
	}
	return err
}

// allNames are the first words of every command and alias.
func allNames() []string {
	var names []string
	for _, r := range commands() {
		if !strings.HasPrefix(r.name, "__") {
			first, _, _ := strings.Cut(r.name, " ")
			names = append(names, first)
		}
	}
	for _, a := range aliases() {
		first, _, _ := strings.Cut(a.name, " ")
		names = append(names, first)
	}
	return names
}

func dispatch(ctx context.Context, env *Env, args []string) error {
	if len(args) == 0 {
		args = []string{"help"}
	}
	env.words = args
	command, words, err := find(args)
	if err != nil {
		return err
	}
	if command == nil {
		return printGroup(env.Out, args[0])
	}
	left, err := take(command, words)
	switch {
	case err == option.ErrHelp:
		return printCommand(env.Out, command)
	case err != nil && command.Misused != 0:
		return WithCode(command.Misused, err)
	case err != nil:
		return err
	case command.Heavy == "":
		return command.Run(ctx, env, left)
	case env.Heavy == nil:
		return becomeKisted(args)
	}
	return env.Heavy[command.Heavy](ctx, env, left, command.HeavyOptions)
}

// take parses words by the command's tables and returns its arguments.
func take(c *Command, words []string) ([]string, error) {
	if c.Raw {
		return words, nil
	}
	style := option.Style(0)
	if c.Rest {
		style = option.Rest
	}
	left, err := option.Parse(c.Options, words, style)
	if err == nil {
		err = checkCount(c, left)
	}
	if wrong := (*fault.Error)(nil); errors.As(err, &wrong) && fault.HintOf(err) == "" {
		wrong.Hint = fmt.Sprintf("%q shows its usage", "kiste help "+c.Name)
	}
	return left, err
}

func checkCount(c *Command, args []string) error {
	if len(args) < c.Min || c.Max >= 0 && len(args) > c.Max {
		return &fault.Error{Op: "take arguments of", On: c.Name, Kind: fault.Invalid, Err: fmt.Errorf("it wants %s and got %s", wanted(c), got(args))}
	}
	return nil
}

func wanted(c *Command) string {
	if c.Args == "" {
		return "none"
	}
	return c.Args
}

func got(args []string) string {
	if len(args) == 0 {
		return "none"
	}
	return fmt.Sprintf("%q", args)
}

// Kisted is the path of kisted: $KISTE_KISTED, else beside this program.
func Kisted() (string, error) {
	if p := os.Getenv("KISTE_KISTED"); p != "" {
		return p, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(self), "kisted"), nil
}

// becomeKisted carries on as kisted with the same arguments.
func becomeKisted(args []string) error {
	path, err := Kisted()
	if err == nil {
		err = sys.Exec(path, append([]string{"kiste"}, args...))
	}
	return &fault.Error{Op: "start", On: path, Err: err, Hint: "kisted belongs beside kiste: install both"}
}
