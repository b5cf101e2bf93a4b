package cli

import (
	"context"
	"encoding/json"
	"fmt"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/fault"
)

// InspectOptions are those of "kiste inspect".
type InspectOptions struct {
	Format string // empty: JSON
	Type   string // "container", "image", "volume", "network"; empty: any
	Size   bool   // with the sizes of containers
}

func inspectCommand() *Command { return inspectOf("inspect", "NAME...", "") }

func containerInspectCommand() *Command {
	return inspectOf("container inspect", "CONTAINER...", "container")
}

func imageInspectCommand() *Command { return inspectOf("image inspect", "IMAGE...", "image") }

// inspectOf is inspect for objects of one kind, or of all.
func inspectOf(name, args, kind string) *Command {
	o := &InspectOptions{Type: kind}
	c := &Command{
		Name:  name,
		Args:  args,
		Short: "show all about containers, images, volumes and networks",
		Long: `Prints a JSON array as Docker does, with an object for each name. One that is not there is left out, and the exit code is 1.

With --format each is shown as a template says: {{.State.Status}}, {{json .Mounts}}, {{range .Config.Env}}{{println .}}{{end}}.`,
		Examples: []string{"kiste " + name + " web", "kiste " + name + " --format '{{json .Config}}' web"},
		Options: []option.Row{
			{"-f, --format", "TEMPLATE", `show each as TEMPLATE says, or "json"`, option.String(&o.Format)},
		},
		Min: 1, Max: -1,
		Complete: "container",
		Run: func(ctx context.Context, env *Env, names []string) error {
			switch {
			case o.Format == "":
				return o.printJSON(env, names)
			case env.Heavy == nil: // a template needs a library that only kisted has
				return becomeKisted(env.words)
			}
			return env.Heavy["inspect"](ctx, env, names, o)
		},
	}
	if kind == "" || kind == "container" {
		c.Options = append(c.Options, option.Row{"-s, --size", "", "with how many bytes each has written", option.Bool(&o.Size)})
	}
	switch kind {
	case "container":
		c.Short = "show all about containers"
	case "image":
		c.Short, c.Complete = "show all about images", "image"
	case "network":
		c.Short, c.Complete = "show all about networks", "network"
	default:
		c.Options = append(c.Options, option.Row{"--type", "container|image|volume|network", "look among these only", oneOf(&o.Type, "", "container", "image", "volume", "network")})
	}
	return c
}

func (o *InspectOptions) printJSON(env *Env, names []string) error {
	found, err := o.Objects(names)
	e := json.NewEncoder(env.Out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "    ")
	if bad := e.Encode(found); bad != nil {
		return bad
	}
	return err
}

// Objects finds what names stand for, in the form of package inspect. With an
// error, which names the others, it still gives what it found; never nil.
func (o *InspectOptions) Objects(names []string) ([]any, error) {
	found := []any{}
	e, err := lookIntoStore()
	if err != nil {
		return found, err
	}
	var bad []error
	for _, name := range names {
		v, err := o.object(e, name)
		if err != nil {
			bad = append(bad, err)
		} else {
			found = append(found, v)
		}
	}
	if len(bad) == 0 {
		return found, nil
	}
	return found, WithCode(1, together(bad))
}

func (o *InspectOptions) object(e *engine.Engine, name string) (any, error) {
	for _, kind := range []struct {
		name string
		find func() (any, error)
	}{
		{"container", func() (any, error) {
			c, err := e.Find(name)
			if err != nil {
				return nil, err
			}
			return e.Inspect(c, o.Size), nil
		}},
		{"image", func() (any, error) {
			i, err := e.Image(name)
			if err != nil {
				return nil, err
			}
			return i.JSON(), nil
		}},
		{"volume", func() (any, error) {
			v, err := e.Volume(name)
			if err != nil {
				return nil, err
			}
			return volumeJSON(v), nil
		}},
		{"network", func() (any, error) {
			n, err := e.Network(name)
			if err != nil {
				return nil, err
			}
			return e.InspectNetwork(n)
		}},
	} {
		if o.Type != "" && o.Type != kind.name {
			continue
		}
		v, err := kind.find()
		if err == nil {
			return v, nil
		}
		// what cannot be the name of one kind may be that of another
		if k := fault.KindOf(err); k != fault.NotFound && (o.Type != "" || k != fault.Invalid || kind.name == "container") {
			return nil, err
		}
	}
	what := o.Type
	if what == "" {
		what = "object"
	}
	return nil, &fault.Error{Op: "inspect", On: name, Kind: fault.NotFound, Err: fmt.Errorf("Error: No such %s: %s", what, name),
		Hint: `"kiste ps -a", "kiste images", "kiste volume ls" and "kiste network ls" list what there is`}
}
