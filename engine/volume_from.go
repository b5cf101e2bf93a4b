package engine

import (
	"fmt"
	"slices"
	"strings"

	"kiste/container/bundle"
	"kiste/fault"
)

// volumesFrom adds what --volumes-from wants: the volumes and directories of
// other containers, at the same places, where the container has nothing of its
// own. A volume without a name is shared by the one that it has got, and stays
// as long as one of them has it.
func (p *Prepared) volumesFrom() error {
	for _, from := range p.Wishes.VolumesFrom {
		name, mode, _ := strings.Cut(from, ":")
		readOnly, ok := map[string]bool{"": false, "rw": false, "z": false, "Z": false, "ro": true}[mode]
		if !ok {
			return &fault.Error{Op: "use option", On: "--volumes-from", Kind: fault.Invalid, Err: fmt.Errorf("invalid mode: %s", mode)}
		}
		c, err := p.e.Find(name)
		if err != nil {
			return err
		}
		for _, m := range c.sharedMounts() {
			if slices.ContainsFunc(p.Wishes.Mounts, func(own bundle.Mount) bool { return own.Target == m.Target }) {
				continue
			}
			m.ReadOnly = m.ReadOnly || readOnly
			m.Option, m.Text = "--volumes-from", from
			p.Wishes.Mounts = append(slices.Clip(p.Wishes.Mounts), m)
		}
	}
	return nil
}

// sharedMounts are the container's volumes, also the image's, and directories of
// the host.
func (c *Container) sharedMounts() (all []bundle.Mount) {
	for _, m := range c.Wishes.Mounts {
		if m.Type == "volume" && m.Source == "" {
			m.Source = c.VolumeNames[m.Target]
		}
		if m.Type == "bind" || m.Type == "volume" {
			all = append(all, m)
		}
	}
	var targets []string
	for target := range c.VolumeNames {
		if !slices.ContainsFunc(all, func(m bundle.Mount) bool { return m.Target == target }) {
			targets = append(targets, target)
		}
	}
	slices.Sort(targets)
	for _, target := range targets {
		all = append(all, bundle.Mount{Type: "volume", Source: c.VolumeNames[target], Target: target})
	}
	return all
}
