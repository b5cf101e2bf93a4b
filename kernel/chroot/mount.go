package chroot

// A Mount is one line of a mount table, as data: snapshot drivers make it,
// the plan lists it, a process does it.
type Mount struct {
	Type    string   // "overlay", "bind", "proc", "tmpfs", …
	Source  string   // a path for a bind, else a name that /proc/mounts shows
	Target  string   // inside the root
	Options []string // as in mount(8): "ro", "nosuid", "size=64m"

	// Of an overlay only: absolute paths of its layers. Lower begins with
	// the topmost. An empty Upper makes the overlay read-only.
	Lower       []string
	Upper, Work string
}
