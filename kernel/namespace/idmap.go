package namespace

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
)

// An IDMap is one line of /proc/PID/uid_map: Size ids from Inside on are, seen
// from the parent namespace, those from Outside on. See user_namespaces(7).
type IDMap struct{ Inside, Outside, Size uint32 }

// String is the map as ParseIDMap reads it: "0:100000:65536".
func (m IDMap) String() string { return fmt.Sprintf("%d:%d:%d", m.Inside, m.Outside, m.Size) }

// IDMaps are the lines of one map; no two may overlap, inside or outside.
type IDMaps []IDMap

// maxMaps is the kernel's limit of lines of one map (UID_GID_MAP_MAX_EXTENTS).
const maxMaps = 340

// String is the maps as ParseIDMaps reads them: "0:1000:1,1:100000:65535".
func (ms IDMaps) String() string {
	parts := make([]string, len(ms))
	for i, m := range ms {
		parts[i] = m.String()
	}
	return strings.Join(parts, ",")
}

// file is the maps as /proc/PID/uid_map takes them.
func (ms IDMaps) file() string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, "%d %d %d\n", m.Inside, m.Outside, m.Size)
	}
	return b.String()
}

// words is the maps as newuidmap(1) takes them.
func (ms IDMaps) words() []string {
	var w []string
	for _, m := range ms {
		for _, n := range []uint32{m.Inside, m.Outside, m.Size} {
			w = append(w, strconv.FormatUint(uint64(n), 10))
		}
	}
	return w
}

// ToOutside is the id outside that inside stands for, and whether there is one.
func (ms IDMaps) ToOutside(inside uint32) (uint32, bool) {
	for _, m := range ms {
		if inside >= m.Inside && inside-m.Inside < m.Size {
			return m.Outside + (inside - m.Inside), true
		}
	}
	return 0, false
}

// UserMaps are the maps of the user namespace that file is, as they are seen
// from this process's own: which own reports whether it is. A process that is
// in it has to tell; where none is, or none may be looked at, the error is
// fault.Unsupported. It takes as long as there are processes, unless file is
// below /proc.
func UserMaps(file string) (uids, gids IDMaps, own bool, err error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, nil, false, &fault.Error{Op: "read id maps of", On: file, Err: err}
	}
	for _, dir := range append([]string{strings.TrimSuffix(file, "/ns/user")}, processes()...) {
		// Read before the process is known to be in it still.
		u, err1 := readMaps(dir + "/uid_map")
		g, err2 := readMaps(dir + "/gid_map")
		if err1 == nil && err2 == nil && sameFile(info, dir+"/ns/user") {
			return u, g, sameFile(info, "/proc/self/ns/user"), nil
		}
	}
	return nil, nil, false, &fault.Error{Op: "read id maps of", On: file, Kind: fault.Unsupported, Err: errors.New("no process in it can be asked")}
}

func sameFile(info os.FileInfo, path string) bool {
	other, err := os.Stat(path)
	return err == nil && os.SameFile(info, other)
}

func processes() []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	return dirs
}

func readMaps(file string) (IDMaps, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var ms IDMaps
	for line := range strings.Lines(string(b)) {
		m, err := ParseIDMap(strings.Join(strings.Fields(line), ":"))
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	return ms, nil
}

// ParseIDMap reads "INSIDE:OUTSIDE:SIZE"; ":SIZE" may be left out and is 1.
func ParseIDMap(s string) (IDMap, error) {
	parts := strings.Split(s, ":")
	if len(parts) == 2 {
		parts = append(parts, "1")
	}
	var n [3]uint32
	if len(parts) != len(n) {
		return IDMap{}, badMap(s, errors.New("want INSIDE:OUTSIDE:SIZE"))
	}
	for i, p := range parts {
		v, err := strconv.ParseUint(p, 10, 32)
		if err != nil {
			return IDMap{}, badMap(s, fmt.Errorf("%q is no number of 32 bits", p))
		}
		n[i] = uint32(v)
	}
	m := IDMap{n[0], n[1], n[2]}
	return m, IDMaps{m}.check()
}

// ParseIDMaps reads maps that stand between commas, in any order. Overlaps are
// fault.Invalid.
func ParseIDMaps(s string) (IDMaps, error) {
	if strings.Count(s, ",") >= maxMaps {
		return nil, badMap(s[:32], fmt.Errorf("more than %d maps", maxMaps))
	}
	var ms IDMaps
	for part := range strings.SplitSeq(s, ",") {
		m, err := ParseIDMap(part)
		if err != nil {
			return nil, err
		}
		ms = append(ms, m)
	}
	return ms, ms.check()
}

// check says what the kernel would only call EINVAL.
func (ms IDMaps) check() error {
	if len(ms) > maxMaps {
		return badMap(strconv.Itoa(len(ms)), fmt.Errorf("more than %d maps", maxMaps))
	}
	for _, m := range ms {
		if m.Size == 0 {
			return badMap(m.String(), errors.New("it maps nothing"))
		}
		if uint64(max(m.Inside, m.Outside))+uint64(m.Size) > math.MaxUint32 {
			return badMap(m.String(), errors.New("it goes beyond the last id"))
		}
	}
	for _, start := range []func(IDMap) uint32{func(m IDMap) uint32 { return m.Inside }, func(m IDMap) uint32 { return m.Outside }} {
		sorted := slices.Clone(ms)
		slices.SortFunc(sorted, func(a, b IDMap) int { return int(int64(start(a)) - int64(start(b))) })
		for i := 1; i < len(sorted); i++ {
			if start(sorted[i])-start(sorted[i-1]) < sorted[i-1].Size {
				return badMap(sorted[i].String(), fmt.Errorf("it overlaps %s", sorted[i-1]))
			}
		}
	}
	return nil
}

func badMap(s string, err error) error {
	return &fault.Error{Op: "read id map", On: s, Kind: fault.Invalid, Err: err, Hint: "0:100000:65536 makes 100000 outside root inside"}
}
