package heavy

import (
	"context"
	"errors"

	"kiste/cli"
	"kiste/engine"
	"kiste/engine/event"
	"kiste/engine/fetch"
	"kiste/image/catalog"
	"kiste/image/reference"
	"kiste/store"
)

// imagePrune is "kiste image prune".
func imagePrune(_ context.Context, env *cli.Env, _ []string, options any) error {
	o := options.(*cli.PruneOptions)
	goes, err := o.Filter()
	if err != nil {
		return err
	}
	where, _, done, err := unpacker(env)
	if done || err != nil {
		return err
	}
	warning := "WARNING! This will remove all dangling images.\n"
	if o.All {
		warning = "WARNING! This will remove all images without at least one container associated to them.\n"
	}
	if !o.Confirmed(env, warning) {
		return nil
	}
	freed, err := pruneImages(env, where, o.All, goes)
	if err == nil {
		cli.ShowReclaimed(env, freed)
	}
	return err
}

// systemPrune is "kiste system prune".
func systemPrune(_ context.Context, env *cli.Env, _ []string, options any) error {
	o := options.(*cli.PruneOptions)
	goes, err := o.Filter()
	if err != nil {
		return err
	}
	where, _, done, err := unpacker(env)
	if done || err != nil {
		return err
	}
	if !o.Confirmed(env, o.SystemWarning()) {
		return nil
	}
	e := &engine.Engine{Store: where}
	total, err := cli.PruneContainers(env, e, goes)
	err = errors.Join(err, cli.PruneNetworks(env, e, goes))
	if o.Volumes {
		names, freed, bad := e.PruneVolumes(func(v *engine.VolumeInfo) bool { return v.Anonymous() && goes(v.Created, v.Labels) })
		event.OfPrune(where, event.Volume, freed)
		cli.ShowDeleted(env, "Deleted Volumes:", names)
		total, err = total+freed, errors.Join(err, bad)
	}
	freed, bad := pruneImages(env, where, o.All, goes)
	cli.ShowReclaimed(env, total+freed)
	return errors.Join(err, bad)
}

// pruneImages removes images, tells which, and gives the number of bytes that
// were freed.
func pruneImages(env *cli.Env, s store.Store, all bool, goes cli.Goes) (int64, error) {
	f, err := fetch.Prune(s, func(e *catalog.Entry) bool {
		return (all || e.Name == "") && goes(e.Created, e.Config.Labels)
	})
	var lines []string
	for _, e := range f.Entries {
		if ref, err := reference.Parse(e.Name); err == nil {
			lines = append(lines, "untagged: "+ref.Familiar())
			event.OfImage(s, "untag", e.ID, ref.Familiar(), e.Config.Labels)
		}
	}
	for _, id := range f.Images {
		lines = append(lines, "deleted: "+id)
		event.OfImage(s, "delete", id, id, nil)
	}
	cli.ShowDeleted(env, "Deleted Images:", lines)
	event.OfPrune(s, event.Image, f.Bytes)
	return f.Bytes, err
}
