package lifecycle

import (
	"errors"
	"os"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/kernel/cgroup/resctrl"
)

// class puts the container into its class of cache and memory bandwidth.
func (m *making) class(f *plan.Facts) error {
	rdt := m.spec.Linux.IntelRdt
	if rdt == nil {
		return nil
	}
	h, err := resctrl.Detect()
	if err != nil {
		return err
	}
	class, steps, err := resctrl.Compile(h, rdt, m.c.doc.ID, isDir)
	if err != nil {
		return err
	}
	m.c.doc.Class, f.Class, f.ClassTasks = &class, steps, class.Tasks()
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// removeClass removes what was made of it for the container.
func (c *Container) removeClass() error {
	if c.doc.Class == nil {
		return nil
	}
	return c.doc.Class.Remove()
}

// classTasks are the files by which one more process enters the class.
func (c *Container) classTasks() []string {
	if c.doc.Class == nil {
		return nil
	}
	return c.doc.Class.Tasks()
}

// UpdateClass changes the schemas of the container's class, and so of all who
// share it; an empty one stays. A container without a class is
// fault.Unsupported.
func (c *Container) UpdateClass(l3, mb string) error {
	h, _ := resctrl.Detect() // a host without has nothing
	for _, no := range []struct {
		so  bool
		why string
	}{
		{l3 != "" && !h.L3, "Intel RDT/CAT: l3 cache schema is not enabled"},
		{mb != "" && !h.MB, "Intel RDT/MBA: memory bandwidth schema is not enabled"},
		{c.doc.Class == nil, "updating a non-existent Intel RDT configuration is not supported"},
	} {
		if no.so {
			return &fault.Error{Op: "update container", On: c.doc.ID, Kind: fault.Unsupported, Err: errors.New(no.why)}
		}
	}
	return c.doc.Class.Update(l3, mb)
}

// ClassStats is what the container's class may use and uses. It is zero where
// it has none.
func (c *Container) ClassStats() (resctrl.Stats, error) {
	if c.doc.Class == nil {
		return resctrl.Stats{}, nil
	}
	return c.doc.Class.Stats()
}
