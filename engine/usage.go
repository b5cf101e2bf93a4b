package engine

import (
	"slices"

	"kiste/image/catalog"
	"kiste/image/snapshot"
)

// A Usage is what the store takes on disk, in bytes of the files' content.
type Usage struct {
	Images     []ImageUsage
	Containers []ContainerUsage // the newest first
	Volumes    []VolumeUsage    // by name
	Layers     int64            // of images, each counted once
	Idle       int64            // of these, what only images without containers need
}

// ImageUsage is what an image takes, under its first name.
type ImageUsage struct {
	catalog.Entry
	Shared     int64 // what other images need, too
	Containers int   // that were made of it
}

// ContainerUsage is what a container has written to its root.
type ContainerUsage struct {
	*Container
	Written int64
}

// VolumeUsage is what a volume takes.
type VolumeUsage struct {
	*VolumeInfo
	Size int64
}

// Usage measures the store. What cannot be read is told of in bad, and does not
// keep the others from being measured.
func (e *Engine) Usage() (u Usage, bad []error, err error) {
	all, bad, err := e.Brief()
	if err != nil {
		return u, bad, err
	}
	made := map[string]int{}
	for _, c := range all {
		made[c.ImageID]++
		u.Containers = append(u.Containers, ContainerUsage{c, e.Written(c.ID)})
	}
	entries, damaged := catalog.List(e.Store)
	if damaged != nil {
		bad = append(bad, damaged)
	}
	u.images(entries, made, snapshot.Open(e.Store))
	volumes, ill, err := e.Volumes()
	for _, v := range volumes {
		u.Volumes = append(u.Volumes, VolumeUsage{v, treeSize(v.Dir)})
	}
	return u, append(bad, ill...), err
}

// images measures each image once. Made tells how many containers were made of
// each.
func (u *Usage) images(entries []catalog.Entry, made map[string]int, l snapshot.Layers) {
	users, active := map[string]int{}, map[string]bool{}
	seen := map[string]bool{}
	for _, e := range entries {
		if seen[e.ID] {
			continue
		}
		seen[e.ID] = true
		u.Images = append(u.Images, ImageUsage{Entry: e, Containers: made[e.ID]})
		for _, key := range slices.Compact(slices.Sorted(slices.Values(e.Layers))) {
			users[key]++
			active[key] = active[key] || made[e.ID] > 0
		}
	}
	sizes := map[string]int64{}
	for key := range users {
		m, _ := l.Metadata(key) // one that is damaged counts as nothing
		sizes[key] = m.Size
		u.Layers += m.Size
		if !active[key] {
			u.Idle += m.Size
		}
	}
	for i := range u.Images {
		for _, key := range u.Images[i].Layers {
			if users[key] > 1 {
				u.Images[i].Shared += sizes[key]
			}
		}
	}
	slices.SortStableFunc(u.Images, func(a, b ImageUsage) int { return b.Created.Compare(a.Created) })
}
