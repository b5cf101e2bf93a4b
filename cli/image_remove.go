package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"kiste/cli/option"
	"kiste/engine"
	"kiste/engine/event"
	"kiste/fault"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/store"
)

func rmiCommand() *Command {
	var force, noPrune bool
	return &Command{
		Name:  "rmi",
		Args:  "IMAGE...",
		Short: "remove images",
		Long: `Takes away the names given, and with the last name the image. An ID stands for the image and all its names, if it has one only, or with --force.

An image that a container stands on is kept, unless --force is given; the container's files stay in any case. The ID of an image that a running container stands on is not removed by --force either. The space is freed by "kiste gc".`,
		Options: []option.Row{
			{"-f, --force", "", "remove it although a container stands on it, or with all its names", option.Bool(&force)},
			{"--no-prune", "", "for Docker's sake: only gc and the prunes free space", option.Bool(&noPrune)},
		},
		Examples: []string{"kiste rmi debian:12", "kiste rmi -f 4f53cda18c2b"},
		Min:      1, Max: -1,
		Complete: "image",
		Run: func(_ context.Context, env *Env, args []string) error {
			s := store.Locate()
			if err := s.Check(); err != nil {
				return err
			}
			var all []error
			for _, name := range args {
				if err := removeImage(env, s, name, force); err != nil {
					all = append(all, err)
				}
			}
			if len(all) == 1 {
				return all[0]
			}
			return errors.Join(all...)
		},
	}
}

func removeImage(env *Env, s store.Store, name string, force bool) error {
	e, err := catalog.Get(s, name)
	if err != nil {
		if k := fault.KindOf(err); force && (k == fault.Invalid || k == fault.Unsupported) {
			return catalog.RemoveDamaged(s, name)
		}
		return err
	}
	names := namesOf(s, e.ID)
	remove, byID := []catalog.Entry{e}, e.Name == "" || !sameName(name, e.Name)
	if byID {
		remove = names
	}
	last := len(remove) == len(names)
	if byID && len(names) > 1 && !force {
		return imageConflict(name, "unable to delete %s (must be forced) - image is referenced in multiple repositories", shortID(e.ID))
	}
	if last && (byID || !force) {
		c, err := standsOn(s, e)
		if err != nil {
			return err
		}
		if c != nil && (!force || engine.IsActive(c.State.Status)) {
			return inUse(name, byID, c)
		}
	}
	for _, r := range remove {
		if err := catalog.Remove(s, r); err != nil {
			return err
		}
		if ref, err := reference.Parse(r.Name); err == nil {
			fmt.Fprintf(env.Out, "Untagged: %s\n", ref.Familiar())
			event.OfImage(s, "untag", e.ID, ref.Familiar(), e.Config.Labels)
		}
	}
	if last {
		event.OfImage(s, "delete", e.ID, e.ID, e.Config.Labels)
		fmt.Fprintf(env.Out, "Deleted: %s\n", e.ID)
	}
	return nil
}

// inUse says in Docker's words which container keeps an image.
func inUse(name string, byID bool, c *engine.Container) error {
	id, container := shortID(c.ImageID), shortID(c.ID)
	switch {
	case !byID:
		return imageConflict(name, "unable to remove repository reference %q (must force) - container %s is using its referenced image %s", name, container, id)
	case engine.IsActive(c.State.Status):
		return imageConflict(name, "unable to delete %s (cannot be forced) - image is being used by running container %s", id, container)
	}
	return imageConflict(name, "unable to delete %s (must be forced) - image is being used by stopped container %s", id, container)
}

func imageConflict(name, format string, args ...any) error {
	return &fault.Error{Op: "remove image", On: name, Kind: fault.Conflict, Err: fmt.Errorf("conflict: "+format, args...),
		Hint: "\"kiste ps -a\" and \"kiste images\" show what has it; --force takes away names that stopped containers need no more"}
}

// sameName reports whether what was typed is the name itself and no ID.
func sameName(typed, name string) bool {
	ref, err := reference.Parse(typed)
	return err == nil && (ref.String() == name || ref.Digest != "")
}

func namesOf(s store.Store, id string) []catalog.Entry {
	all, _ := catalog.List(s)
	var names []catalog.Entry
	for _, e := range all {
		if e.ID == id {
			names = append(names, e)
		}
	}
	return names
}

// standsOn gives a container of the image, one that runs before others, or nil.
func standsOn(s store.Store, e catalog.Entry) (on *engine.Container, err error) {
	all, _, err := engineOn(s).Brief()
	for _, c := range all {
		if c.ImageID == e.ID && (on == nil || engine.IsActive(c.State.Status)) {
			on = c
		}
	}
	return on, err
}

func tagCommand() *Command {
	return &Command{
		Name:     "tag",
		Args:     "IMAGE NAME[:TAG]",
		Short:    "give an image one more name",
		Examples: []string{"kiste tag debian:12 localhost:5000/debian:12"},
		Min:      2, Max: 2,
		Complete: "image",
		Run: func(_ context.Context, _ *Env, args []string) error {
			s := store.Locate()
			if err := s.Check(); err != nil {
				return err
			}
			e, err := catalog.Get(s, args[0])
			if err != nil {
				return err
			}
			ref, err := reference.Parse(args[1])
			if err == nil && ref.Digest != "" {
				err = &fault.Error{Op: "tag image", On: args[1], Kind: fault.Invalid, Err: errors.New("a digest cannot be given")}
			}
			if err != nil {
				return err
			}
			lock, err := store.LockFile(filepath.Join(s.Lib, "lock"), false)
			if err != nil {
				return err
			}
			defer lock.Unlock()
			e.Name = ref.String()
			if err := catalog.Put(s, e); err != nil {
				return err
			}
			event.OfImage(s, "tag", e.ID, ref.Familiar(), e.Config.Labels)
			return nil
		},
	}
}
