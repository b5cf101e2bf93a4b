package rules

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
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

// A table of its own, called name-rates, holds a chain for each limited group and
// direction: "ID-sends", by the group's inode. Its rule's comment says the rate.
func ratesTable(name string) nft.Table {
	return nft.Table{Family: nft.Inet, Name: name + "-rates", Comment: "rates of cgroups"}
}

// way is one of the directions of a CgroupRate.
type way struct {
	word string
	hook nft.Hook
	rate *network.Rate
}

func (c *CgroupRate) ways() []way {
	return []way{{"sends", nft.Output, &c.Sends}, {"receives", nft.Input, &c.Receives}}
}

func chainOf(id uint64, w way) string { return fmt.Sprintf("%d-%s", id, w.word) }

// group is the group's inode, and how deep it lies.
func (c *CgroupRate) group() (id uint64, level uint32, err error) {
	group := strings.Trim(c.Group, "/")
	switch {
	case c.Mount == "":
		return 0, 0, &fault.Error{Op: "limit the network of cgroup", On: c.Group, Kind: fault.Unsupported, Err: errors.New("no cgroups of version 2 are mounted, and version 1 has no rates"),
			Hint: "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"}
	case group == "":
		return 0, 0, &fault.Error{Op: "limit the network of cgroup", On: c.Group, Kind: fault.Invalid, Err: errors.New("the root has no limits")}
	}
	if _, id, err = sys.InodeOf(c.Mount + "/" + group); err != nil {
		return 0, 0, &fault.Error{Op: "limit the network of cgroup", On: c.Group, Err: err}
	}
	return id, uint32(strings.Count(group, "/") + 1), nil
}

// Read reads which rates are in force in the calling thread's network namespace.
func (c *CgroupRate) Read(name string) error {
	id, _, err := c.group()
	if err != nil {
		return err
	}
	conn, err := nft.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	all, err := conn.Rules(ratesTable(name))
	if err != nil {
		return err
	}
	for _, w := range c.ways() {
		*w.rate = 0
		for _, r := range all {
			if text, _, _ := strings.Cut(r.Comment, " "); r.Chain == chainOf(id, w) {
				*w.rate, _ = network.ParseRate(text)
			}
		}
	}
	return nil
}

// Set puts the rates in force in the calling thread's network namespace, in
// place of the group's former ones; without any it takes them away. A group that
// is not there is fault.NotFound, and a kernel without the match (before 5.13)
// fault.Unsupported.
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
	if err := conn.Do(b); err != nil {
		return lacksMatch(err)
	}
	return sweepRates(conn, ratesTable(name), c.Mount)
}

// lacksMatch says what is missing where an expression is: all else that a batch of
// compile names is made by it.
func lacksMatch(err error) error {
	if kind := fault.KindOf(err); kind != fault.NotFound && kind != fault.Unsupported {
		return err
	}
	return &fault.Error{Op: "limit the network of cgroups", Kind: fault.Unsupported, Err: err, Hint: "modprobe nft_socket nft_limit; the packet filter knows cgroups from Linux 5.13 on"}
}

func (c *CgroupRate) compile(name string) (*nft.Batch, error) {
	id, level, err := c.group()
	if err != nil {
		return nil, err
	}
	t := ratesTable(name)
	var b nft.Batch
	b.AddTable(t)
	for _, w := range c.ways() {
		chain := nft.Chain{Name: chainOf(id, w), Type: "filter", Hook: w.hook, Priority: nft.PriorityFilter}
		b.AddChain(t, chain) // it may be there or not: then it is emptied, or deleted
		b.Flush(t, chain.Name)
		if *w.rate == 0 {
			b.DeleteChain(t, chain.Name)
			continue
		}
		b.AddRule(t, nft.Rule{Chain: chain.Name, Comment: w.rate.String() + " of " + c.Group,
			Do: append(nft.OfCgroup(id, level, nft.R(0)), nft.Over(uint64(*w.rate), burst(*w.rate)), nft.Drop())})
	}
	return &b, nil
}

// SweepCgroupRates takes the rates away of groups that are gone, in the calling
// thread's network namespace, and the table where no rate is left.
func SweepCgroupRates(name string) error {
	conn, err := nft.Open()
	if err != nil {
		return err
	}
	defer conn.Close()
	t := ratesTable(name)
	if _, err := conn.Table(t.Family, t.Name); err != nil {
		if errors.Is(err, fault.NotFound) {
			return nil
		}
		return err
	}
	return sweepRates(conn, t, Cgroup2())
}

func sweepRates(conn *nft.Conn, t nft.Table, mount string) error {
	all, err := conn.Rules(t)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	if len(all) > 0 {
		there = inodesBelow(mount)
	}
	var b nft.Batch
	for _, r := range all {
		if id, _, _ := strings.Cut(r.Chain, "-"); !there[id] {
			b.Flush(t, r.Chain)
			b.DeleteChain(t, r.Chain)
		}
	}
	err = conn.Do(&b)
	if err == nil {
		b = nft.Batch{}
		b.DeleteEmptyTable(t)
		err = conn.Do(&b)
	}
	if kind := fault.KindOf(err); kind == fault.NotFound || kind == fault.Conflict { // somebody else sweeps, or rates are left
		return nil
	}
	return err
}

// inodesBelow are the numbers of all groups.
func inodesBelow(mount string) map[string]bool {
	all := map[string]bool{}
	_ = filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // it has just gone
		}
		if _, id, err := sys.InodeOf(path); err == nil {
			all[strconv.FormatUint(id, 10)] = true
		}
		return nil
	})
	return all
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
