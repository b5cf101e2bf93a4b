package rules

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network"
	"kiste/kernel/network/nft"
)

// A CgroupRate limits what the processes of a cgroup of version 2, and of those
// below it, send and receive in one network namespace: those without a link of
// their own, whose rate could be set. Version 2 has no controller for networks;
// the packet filter knows of which group a socket's maker was.
//
// What is more than the rate is dropped, and the sender slows down; a link's
// limit lets it wait instead, and is smoother. Received packets have crossed the
// wire by then. A process keeps the group of its sockets when it is moved.
type CgroupRate struct {
	Mount string // where version 2 is mounted: "/sys/fs/cgroup"
	Group string // the group's path below it: "/web"

	Sends, Receives network.Rate // 0: no limit
}

// ratesTable holds a chain for each limited group and direction.
const ratesTable = "-rates"

// Set puts the rates in force in the calling thread's network namespace, in
// place of the group's former ones; without any it takes them away. A table of
// its own, called name-rates, has them, and stays; who removes a group sets none
// before.
// A group that is not there is fault.NotFound, and a kernel without the match
// (before 5.13) fault.Unsupported.
func (c CgroupRate) Set(name string) error {
	b, err := c.compile(name)
	if err != nil {
		return err
	}
	conn, err := nft.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.Do(b)
}

func (c CgroupRate) compile(name string) (*nft.Batch, error) {
	group := strings.Trim(c.Group, "/")
	if group == "" {
		return nil, &fault.Error{Op: "limit the network of cgroup", On: c.Group, Kind: fault.Invalid, Err: fmt.Errorf("the root has no limits")}
	}
	_, id, err := sys.InodeOf(c.Mount + "/" + group)
	if err != nil {
		return nil, &fault.Error{Op: "limit the network of cgroup", On: c.Group, Err: err}
	}
	level := uint32(strings.Count(group, "/") + 1)
	t := nft.Table{Family: nft.Inet, Name: name + ratesTable, Comment: "rates of cgroups"}
	var b nft.Batch
	b.AddTable(t)
	for _, way := range []struct {
		word string
		hook nft.Hook
		rate network.Rate
	}{{"sends", nft.Output, c.Sends}, {"receives", nft.Input, c.Receives}} {
		chain := nft.Chain{Name: fmt.Sprintf("%d-%s", id, way.word), Type: "filter", Hook: way.hook, Priority: nft.PriorityFilter}
		b.AddChain(t, chain) // it may be there or not: then it is emptied, or deleted
		b.Flush(t, chain.Name)
		if way.rate == 0 {
			b.DeleteChain(t, chain.Name)
			continue
		}
		b.AddRule(t, nft.Rule{Chain: chain.Name, Comment: c.Group,
			Do: append(nft.OfCgroup(id, level, nft.R(0)), nft.Over(uint64(way.rate), burst(way.rate)), nft.Drop())})
	}
	return &b, nil
}

// burst is what may pass at once: 50 ms, and a few of the largest packets that
// the kernel makes.
func burst(r network.Rate) uint32 {
	const largest = 64 << 10
	return uint32(min(max(uint64(r)/20, 4*largest), 1<<30))
}

// Cgroup2 finds where version 2 is mounted: on hosts that have it alone, and on
// those that have it beside version 1. Empty: nowhere.
func Cgroup2() string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if st, err := sys.Statfs(dir); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
			return dir
		}
	}
	return ""
}
