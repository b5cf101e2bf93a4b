package resctrl

import (
	"errors"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Host is what this one has. It is plain data.
type Host struct {
	Root    string   // where the file system is mounted
	L3, MB  bool     // allocation of the L3 cache, of memory bandwidth
	Monitor []string // what is counted: "llc_occupancy", "mbm_total_bytes", "mbm_local_bytes"
}

// usual is where the file system is mounted.
const usual = "/sys/fs/resctrl"

// Detect finds the file system. It is fault.Unsupported where none is mounted.
func Detect() (Host, error) {
	st, err := sys.Statfs(usual)
	if err == nil && st.Type == unix.RDTGROUP_SUPER_MAGIC {
		return look(usual), nil
	}
	hint := "mount -t resctrl resctrl " + usual
	if err != nil {
		hint = "neither this processor nor a virtual machine's has it, or the kernel was built without"
	}
	if root, ok := elsewhere(); err == nil && ok {
		return look(root), nil
	}
	return Host{}, &fault.Error{Op: "carry out", On: "linux.intelRdt", Kind: fault.Unsupported, Err: errors.New("no resctrl file system is mounted"), Hint: hint}
}

// elsewhere asks the table of mounts.
func elsewhere() (string, bool) {
	table, err := sys.ReadKnob("/proc/self/mountinfo", 16<<20)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(table) {
		left, right, _ := strings.Cut(line, " - ")
		f, r := strings.Fields(left), strings.Fields(right)
		if len(f) >= 5 && len(r) > 0 && r[0] == "resctrl" && !strings.Contains(f[4], `\`) {
			return f[4], true
		}
	}
	return "", false
}

// look reads what the file system at root can do.
func look(root string) Host {
	has := func(names ...string) bool {
		for _, name := range names {
			if _, err := os.Stat(path.Join(root, "info", name)); err == nil {
				return true
			}
		}
		return false
	}
	h := Host{Root: root, L3: has("L3", "L3CODE"), MB: has("MB")}
	features, _ := sys.ReadKnob(path.Join(root, "info/L3_MON/mon_features"), 4096)
	for name := range strings.FieldsSeq(features) {
		if name == "llc_occupancy" || name == "mbm_total_bytes" || name == "mbm_local_bytes" {
			h.Monitor = append(h.Monitor, name)
		}
	}
	return h
}
