package network

import (
	"fmt"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/internal/sys"
)

// Counters are what went through an interface since it was made, as those who
// have it see it. The names are those of runc's statistics.
type Counters struct {
	Name                                    string
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// CountersOf are those of all interfaces in the network of process pid, in the
// kernel's order. It is fault.NotFound where there is no such process. Source:
// proc_pid_net(5), dev.
func CountersOf(pid int) ([]Counters, error) {
	const most = 1 << 20
	file := fmt.Sprintf("/proc/%d/net/dev", pid)
	text, err := sys.ReadKnob(file, most)
	if err != nil {
		return nil, &fault.Error{Op: "read", On: file, Err: err}
	}
	return parseCounters(text), nil
}

// parseCounters reads a table with two lines of words above it. Its columns
// are bytes, packets, errors, dropped and four more, received and sent.
func parseCounters(text string) []Counters {
	list := []Counters{}
	for line := range strings.Lines(text) {
		name, rest, ok := strings.Cut(line, ":")
		f := strings.Fields(rest)
		if !ok || len(f) < 16 {
			continue
		}
		c := Counters{Name: strings.TrimSpace(name)}
		for i, to := range []*uint64{&c.RxBytes, &c.RxPackets, &c.RxErrors, &c.RxDropped} {
			*to, _ = strconv.ParseUint(f[i], 10, 64)
		}
		for i, to := range []*uint64{&c.TxBytes, &c.TxPackets, &c.TxErrors, &c.TxDropped} {
			*to, _ = strconv.ParseUint(f[8+i], 10, 64)
		}
		list = append(list, c)
	}
	return list
}
