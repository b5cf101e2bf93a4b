package cgroup

import (
	"os"
	"slices"
	"time"
)

// Below names the groups directly below parent in any hierarchy of l that hold
// no process, themselves or further down, and that have been there for at
// least the given time, sorted. The time is by the kernel's account, which may
// be shorter than the truth.
func Below(l Layout, parent string, age time.Duration) ([]string, error) {
	p, err := CheckPath(parent)
	if err != nil {
		return nil, err
	}
	var names []string
	young := map[string]bool{}
	for _, h := range l.All() {
		entries, err := os.ReadDir(h.Dir(p))
		if err != nil {
			continue // a hierarchy need not have the parent
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil || !e.IsDir() {
				continue
			}
			names = append(names, e.Name())
			young[e.Name()] = young[e.Name()] || time.Since(info.ModTime()) < age
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(slices.Compact(names), func(name string) bool { return young[name] || inUse(l, p+"/"+name) }), nil
}

func inUse(l Layout, group string) bool {
	g, err := Open(l, group)
	return err == nil && g.populated()
}
