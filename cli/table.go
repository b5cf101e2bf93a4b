package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"kiste/fault"
)

// A row is a command by name; its constructor is called when it is needed, so
// that a start pays for one command and not for all.
type row struct {
	name string
	new  func() *Command
}

// table is every command, in the order in which "kiste help" lists them, by
// group. It is a function, since "help" itself, a row, reads it.
func table() []row {
	return []row{
		{"version", versionCommand},
	}
}

// find takes the longest command name off the front of args.
func find(args []string) (*Command, []string, error) {
	for words := min(2, len(args)); words > 0; words-- {
		name := strings.Join(args[:words], " ")
		rows := table()
		if i := slices.IndexFunc(rows, func(r row) bool { return r.name == name }); i >= 0 {
			return rows[i].new(), args[words:], nil
		}
	}
	return nil, nil, &fault.Error{Op: "find command", On: strings.Join(args[:min(1, len(args))], " "), Kind: fault.Invalid,
		Err: fmt.Errorf("there is no such command"), Hint: `"kiste help" lists them`}
}

func dispatch(ctx context.Context, env *Env, args []string) error {
	command, words, err := find(args)
	if err != nil {
		return err
	}
	left, err := parse(command.Options, words, command.Rest)
	if err == nil {
		err = checkCount(command, left)
	}
	if err != nil {
		return withHint(err, fmt.Sprintf("%q shows its options", "kiste help "+command.Name))
	}
	switch {
	case command.Heavy == "":
		return command.Run(ctx, env, left)
	case env.Heavy == nil:
		return becomeKisted(args)
	}
	return env.Heavy[command.Heavy](ctx, env, left, command.HeavyOptions)
}

func checkCount(c *Command, args []string) error {
	if len(args) < c.Min || c.Max >= 0 && len(args) > c.Max {
		return &fault.Error{Op: "run command", On: c.Name, Kind: fault.Invalid, Err: fmt.Errorf("it takes %s", wanted(c))}
	}
	return nil
}

func wanted(c *Command) string {
	if c.Args == "" {
		return "no arguments"
	}
	return c.Args
}

func withHint(err error, hint string) error {
	if fault.HintOf(err) != "" {
		return err
	}
	return &hinted{err, hint}
}

type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return &fault.Error{Hint: h.hint, Err: h.error} }

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
		err = syscall.Exec(path, append([]string{"kiste"}, args...), os.Environ())
	}
	return &fault.Error{Op: "start", On: path, Err: err, Hint: "kisted belongs beside kiste: install both"}
}
