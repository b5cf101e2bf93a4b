package resctrl

import (
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"kiste/internal/sys"
)

// Stats is what a class may use and uses, in the shape of intel_rdt in the data
// of runc's "events --stats".
type Stats struct {
	L3CacheInfo       *L3CacheInfo   `json:"l3_cache_info,omitempty"`
	L3CacheSchemaRoot string         `json:"l3_cache_schema_root,omitempty"`
	L3CacheSchema     string         `json:"l3_cache_schema,omitempty"`
	MemBwInfo         *MemBwInfo     `json:"mem_bw_info,omitempty"`
	MemBwSchemaRoot   string         `json:"mem_bw_schema_root,omitempty"`
	MemBwSchema       string         `json:"mem_bw_schema,omitempty"`
	Schemata          []string       `json:"schemata,omitempty"`
	MBMStats          *[]Bandwidth   `json:"mbm_stats,omitempty"`
	CMTStats          *[]CacheFilled `json:"cmt_stats,omitempty"`
}

// L3CacheInfo is how the L3 cache can be shared out.
type L3CacheInfo struct {
	CbmMask    string `json:"cbm_mask,omitempty"`
	MinCbmBits uint64 `json:"min_cbm_bits,omitempty"`
	NumClosids uint64 `json:"num_closids,omitempty"`
}

// MemBwInfo is how memory bandwidth can be shared out, in percent.
type MemBwInfo struct {
	BandwidthGran uint64 `json:"bandwidth_gran,omitempty"`
	DelayLinear   uint64 `json:"delay_linear,omitempty"`
	MinBandwidth  uint64 `json:"min_bandwidth,omitempty"`
	NumClosids    uint64 `json:"num_closids,omitempty"`
}

// Bandwidth is what went through one L3 cache, in bytes.
type Bandwidth struct {
	Total uint64 `json:"mbm_total_bytes"`
	Local uint64 `json:"mbm_local_bytes"`
}

// CacheFilled is what is in one L3 cache, in bytes.
type CacheFilled struct {
	Occupancy uint64 `json:"llc_occupancy"`
}

// Stats reads what the class may use and uses. Without a group of its own that
// counts, it counts for all who share the class.
func (c Class) Stats() (Stats, error) {
	h := look(c.Root)
	own, err := schemata(c.Dir)
	if err != nil {
		return Stats{}, err
	}
	all, err := schemata(c.Root)
	if err != nil {
		return Stats{}, err
	}
	s := Stats{Schemata: own}
	info := func(name string) uint64 { return number(path.Join(c.Root, "info", name)) }
	if h.L3 {
		mask, _ := sys.ReadKnob(path.Join(c.Root, "info/L3/cbm_mask"), 256)
		s.L3CacheInfo = &L3CacheInfo{strings.TrimSpace(mask), info("L3/min_cbm_bits"), info("L3/num_closids")}
		s.L3CacheSchemaRoot, s.L3CacheSchema = lineOf(all, "L3"), lineOf(own, "L3")
	}
	if h.MB {
		s.MemBwInfo = &MemBwInfo{info("MB/bandwidth_gran"), info("MB/delay_linear"), info("MB/min_bandwidth"), info("MB/num_closids")}
		s.MemBwSchemaRoot, s.MemBwSchema = lineOf(all, "MB"), lineOf(own, "MB")
	}
	c.monitor(h, &s)
	return s, nil
}

// monitor reads the counters of each cache.
func (c Class) monitor(h Host, s *Stats) {
	dir := path.Join(c.Dir, "mon_data")
	if c.Monitor != "" {
		dir = path.Join(c.Monitor, "mon_data")
	}
	counts := func(name string) bool { return slices.Contains(h.Monitor, name) }
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	var through []Bandwidth
	var filled []CacheFilled
	for _, e := range entries {
		at := path.Join(dir, e.Name())
		through = append(through, Bandwidth{number(at + "/mbm_total_bytes"), number(at + "/mbm_local_bytes")})
		filled = append(filled, CacheFilled{number(at + "/llc_occupancy")})
	}
	if counts("mbm_total_bytes") || counts("mbm_local_bytes") {
		s.MBMStats = &through
	}
	if counts("llc_occupancy") {
		s.CMTStats = &filled
	}
}

func schemata(dir string) ([]string, error) {
	text, err := sys.ReadKnob(dir+"/schemata", 64<<10)
	if err != nil {
		return nil, err
	}
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines, nil
}

// lineOf is the last line of a resource.
func lineOf(lines []string, resource string) string {
	for _, line := range slices.Backward(lines) {
		if strings.HasPrefix(line, resource) {
			return line
		}
	}
	return ""
}

// number reads a file of one number; what cannot be read, or is "Unavailable",
// is 0.
func number(file string) uint64 {
	text, _ := sys.ReadKnob(file, 64)
	n, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64)
	return n
}
