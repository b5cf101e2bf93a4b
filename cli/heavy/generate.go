package heavy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/quadlet"
	"kiste/fault"
	"kiste/store"
)

// program is the path of kiste, for units: the one that belongs beside this
// program.
func program() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	return filepath.Join(filepath.Dir(self), "kiste"), nil
}

// placement are the variables that say where the store is, if it is not where all
// look.
func placement() []string {
	var env []string
	for _, name := range []string{"KISTE_LIB", "KISTE_RUN"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// generateSystemd is "kiste generate systemd".
func generateSystemd(_ context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.GenerateSystemd)
	if o.Format != "" && o.Format != "json" {
		return &fault.Error{Op: "use option", On: "--format", Kind: fault.Invalid, Err: errors.New("json is the only one")}
	}
	e := &engine.Engine{Store: store.Locate(), Kisted: cli.Kisted}
	c, err := e.Find(args[0])
	if err != nil {
		return err
	}
	kiste, err := program()
	if err != nil {
		return err
	}
	s := serviceOf(c, o, kiste)
	if o.New {
		if s.Start, err = anew(c, kiste); err != nil {
			return err
		}
		s.Remove = []string{kiste, "rm", "-f", "-v", c.Name}
	}
	switch name := s.Unit + ".service"; {
	case o.Files:
		path, err := filepath.Abs(name)
		if err == nil {
			err = os.WriteFile(path, []byte(s.Text()), 0o644)
		}
		if err != nil {
			return &fault.Error{Op: "write unit", On: name, Err: err}
		}
		fmt.Fprintln(env.Out, path)
	case o.Format == "json":
		return json.NewEncoder(env.Out).Encode(map[string]string{s.Unit: s.Text()})
	default:
		_, err := fmt.Fprint(env.Out, s.Text())
		return err
	}
	return nil
}

// serviceOf is the unit of a container that is there.
func serviceOf(c *engine.Container, o *cli.GenerateSystemd, kiste string) *quadlet.Service {
	name := c.ID
	if o.Name || o.New {
		name = c.Name
	}
	limit := int(c.Result.StopTimeout / time.Second)
	stop := []string{kiste, "stop"}
	if o.StopLimit > 0 {
		limit = int(o.StopLimit)
		stop = append(stop, "-t", strconv.Itoa(limit))
	}
	unit := name
	if o.Prefix != "" {
		unit = o.Prefix + o.Separator + name
	}
	return &quadlet.Service{
		Unit: unit, Container: name, Header: !o.NoHeader,
		Start: []string{kiste, "start", "--attach", "--cgroups=split", "--sdnotify=conmon", name}, Stop: append(stop, name),
		Environment: slices.Concat(placement(), quadlet.Literal(o.Environment)), After: o.After, Wants: o.Wants, Requires: o.Requires,
		Restart: o.Restart, RestartSec: int(o.RestartSec), StartLimit: int(o.StartLimit), StopLimit: max(limit, 0),
	}
}

// ours are the options by which a unit runs a container, in place of those by which
// it was made.
var ours = []string{"--name", "--replace", "--rm", "--detach", "--restart", "--cgroups", "--sdnotify", "--cidfile", "--attach", "--tty", "--interactive", "--sig-proxy", "--detach-keys"}

// anew is the command line that makes a container as c was made.
func anew(c *engine.Container, kiste string) ([]string, error) {
	if c.Asked == nil && c.Wishes.Args == nil && c.ImageName == "" {
		return nil, &fault.Error{Op: "make anew", On: c.Name, Kind: fault.Unsupported, Err: errors.New("it is not known how it was made")}
	}
	line := []string{kiste, "run", "--name=" + c.Name, "--replace", "--rm", "--cgroups=split", "--sdnotify=conmon"}
	if c.Wishes.TTY {
		line = append(line, "--tty")
	}
	for _, a := range c.Asked {
		name, _, _ := strings.Cut(a, "=")
		if !slices.Contains(ours, name) {
			line = append(line, quadlet.Literal([]string{a})...)
		}
	}
	return slices.Concat(line, quadlet.Literal(append([]string{c.ImageName}, c.Wishes.Args...))), nil
}

// generateQuadlet is "kiste generate quadlet".
func generateQuadlet(_ context.Context, env *cli.Env, args []string, options any) error {
	o := options.(*cli.GenerateQuadlet)
	kiste, err := program()
	if err != nil {
		return err
	}
	files, bad := quadlet.Find(quadlet.Dirs(o.User, strconv.Itoa(os.Getuid()), os.Getenv))
	units, err := quadlet.CompileAll(files, quadlet.Options{Program: kiste, User: o.User, Environment: placement()})
	all := []error{bad, err}
	for _, u := range units {
		for _, w := range u.Warnings {
			fmt.Fprintln(env.Err, "kiste: note: "+w)
		}
		if o.DryRun || len(args) == 0 {
			fmt.Fprintf(env.Out, "---%s---\n%s\n", u.Name, u.Text)
			continue
		}
		all = append(all, u.Write(args[0]))
	}
	return errors.Join(all...)
}
