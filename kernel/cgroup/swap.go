package cgroup

import (
	"os"
	"path"
)

// LimitsSwap reports whether this host can limit the swap of groups below
// parent: version 1 with "swapaccount=0" cannot, nor can a kernel without swap.
// What cannot be found out counts as yes.
func LimitsSwap(l Layout, parent string) bool {
	h, ok := l.Find("memory")
	if !ok {
		return true
	}
	if !h.V2 {
		return exists(path.Join(h.Mount, "memory.memsw.limit_in_bytes"))
	}
	// The root has none of these files, and parent may be still to be made.
	for dir := h.Dir(parent); dir != h.Mount && len(dir) > len(h.Mount); dir = path.Dir(dir) {
		if exists(path.Join(dir, "memory.max")) {
			return exists(path.Join(dir, "memory.swap.max"))
		}
	}
	return true
}

func exists(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}
