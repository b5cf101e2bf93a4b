package network

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/network/netlink"
)

// A Namespace is a network namespace to work on.
type Namespace struct {
	// FD is a descriptor of it, for Link.PeerNS.
	FD     int
	owner  int // descriptor of the user namespace to enter first; none: threads of ours enter
	socket *netlink.Socket
}

// Here is the network namespace of the calling thread.
func Here() (*Namespace, error) {
	return openHere(threadNS)
}

const threadNS = "/proc/thread-self/ns/net"

func openHere(path string) (*Namespace, error) {
	fd, err := sys.OpenFile(path, unix.O_RDONLY)
	if err != nil {
		return nil, &fault.Error{Op: "open network namespace", On: path, Err: err}
	}
	s, err := netlink.Open(unix.NETLINK_ROUTE)
	if err != nil {
		_ = sys.Close(fd)
		return nil, &fault.Error{Op: "open netlink socket", Err: err}
	}
	return &Namespace{FD: fd, owner: none, socket: s}, nil
}

// Open is the network namespace that the file path stands for: a pin, or
// /proc/PID/ns/net. It may be one that belongs to another user namespace of this
// process's user.
func Open(path string) (*Namespace, error) {
	fd, err := sys.OpenFile(path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &fault.Error{Op: "open network namespace", On: path, Err: err}
	}
	var s *netlink.Socket
	err = within(fd, func() (err error) {
		s, err = netlink.Open(unix.NETLINK_ROUTE)
		return err
	})
	if err == nil {
		return &Namespace{FD: fd, owner: none, socket: s}, nil
	}
	if !errors.Is(err, syscall.EPERM) {
		_ = sys.Close(fd)
		return nil, &fault.Error{Op: "open network namespace", On: path, Err: err}
	}
	n, err := openForeign(fd)
	if err != nil {
		return nil, &fault.Error{Op: "open network namespace", On: path, Err: err}
	}
	return n, nil
}

// OpenProcess is the network namespace of the process pid. Who must know that it
// is no other process's asks afterwards whether that one still lives.
func OpenProcess(pid int) (*Namespace, error) { return Open("/proc/" + strconv.Itoa(pid) + "/ns/net") }

// New is a new network namespace, with its loopback link up. It lives until
// Close, or for as long as a process or a pin is in it.
func New() (*Namespace, error) {
	var n *Namespace
	err := aside(func() (err error) {
		if err = sys.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if n, err = Here(); err == nil {
			err = n.SetUp("lo")
		}
		return err
	})
	if err != nil {
		return nil, &fault.Error{Op: "make network namespace", Err: err, Hint: newHint(err)}
	}
	return n, nil
}

func newHint(err error) string {
	if fault.KindOf(err) == fault.Denied {
		return "be root, or root of a user namespace: kiste namespace run --map-root -- kiste network run ..."
	}
	return ""
}

// aside calls do in a thread that ends with it.
func aside(do func() error) error {
	_, err := sys.OnOwnThread(func() (int, error) { return 0, do() })
	return err
}

// within calls f, which is short and starts nothing, in the network namespace
// fd, on the calling thread. It costs less than a thread of its own.
func within(fd int, f func() error) error {
	runtime.LockOSThread()
	own, err := sys.OpenFile(threadNS, unix.O_RDONLY)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer sys.Close(own)
	if err = sys.Setns(fd, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	if back := sys.Setns(own, unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // and the thread stays with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// Do calls f in a thread inside n: sockets opened there belong to n. F must
// not start goroutines that rely on it.
func (n *Namespace) Do(f func() error) error {
	return aside(func() error {
		if err := sys.Setns(n.FD, unix.CLONE_NEWNET); err != nil {
			return &fault.Error{Op: "enter network namespace", Err: err}
		}
		return f()
	})
}

// Close gives the descriptors back.
func (n *Namespace) Close() error {
	err := errors.Join(sys.Close(n.FD), n.socket.Close())
	if n.Foreign() {
		err = errors.Join(err, sys.Close(n.owner))
	}
	return err
}

// Create creates l. A name that is taken is fault.Exists; a kind that this
// kernel lacks is fault.Unsupported.
func (n *Namespace) Create(l Link) error {
	var c changes
	if err := c.create(l); err != nil {
		return err
	}
	return n.do(&c)
}

func named(op, on string, err error) error {
	if err == nil {
		return nil
	}
	hint := ""
	if fault.KindOf(err) == fault.Denied {
		hint = "CAP_NET_ADMIN is needed over this network namespace: be root"
	}
	return &fault.Error{Op: op, On: on, Hint: hint, Err: err}
}

// Delete deletes a link; with a veth its other end goes too.
func (n *Namespace) Delete(name string) error {
	b := ifinfo(0, 0, 0)
	b.Text(unix.IFLA_IFNAME, name)
	_, err := n.socket.Ask(unix.RTM_DELLINK, 0, b)
	return named("delete link", name, err)
}

// change sends attributes for an existing link.
func (n *Namespace) change(op, name string, up bool, fill func(*netlink.Body)) error {
	flags, mask := upFlags(up)
	b := ifinfo(0, flags, mask)
	b.Text(unix.IFLA_IFNAME, name)
	fill(&b)
	_, err := n.socket.Ask(unix.RTM_NEWLINK, 0, b)
	return named(op, name, err)
}

// SetUp brings a link up.
func (n *Namespace) SetUp(name string) error {
	return n.change("set up link", name, true, func(*netlink.Body) {})
}

// SetMaster makes the link a port of the bridge with index master; 0: of none.
func (n *Namespace) SetMaster(name string, master int) error {
	return n.change("set master of link", name, false, func(b *netlink.Body) { b.U32(unix.IFLA_MASTER, uint32(master)) })
}

// SetMTU sets a link's largest packet, in bytes.
func (n *Namespace) SetMTU(name string, mtu int) error {
	return n.change("set MTU of link", name, false, func(b *netlink.Body) { b.U32(unix.IFLA_MTU, uint32(mtu)) })
}

// SetMAC sets a link's address.
func (n *Namespace) SetMAC(name, mac string) error {
	bytes, err := parseMAC(mac)
	if err != nil {
		return err
	}
	return n.change("set MAC address of link", name, false, func(b *netlink.Body) { b.Add(unix.IFLA_ADDRESS, bytes) })
}

// Move moves a link into another namespace, where it is down.
func (n *Namespace) Move(name string, to *Namespace) error {
	return n.change("move link", name, false, func(b *netlink.Body) { b.U32(unix.IFLA_NET_NS_FD, uint32(to.FD)) })
}

// Links lists the links.
func (n *Namespace) Links() ([]Link, error) {
	answers, err := n.socket.Ask(unix.RTM_GETLINK, unix.NLM_F_DUMP, ifinfo(0, 0, 0))
	if err != nil {
		return nil, named("list links", "", err)
	}
	var all []Link
	for _, m := range answers {
		l, err := parseLink(m.Data)
		if err != nil {
			return nil, named("list links", "", err)
		}
		all = append(all, l)
	}
	return all, nil
}

// skipStats is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h: nobody counts here,
// and the numbers are most of an answer.
const skipStats = 8

// Link finds a link by its name, which nothing having is fault.NotFound.
func (n *Namespace) Link(name string) (Link, error) {
	b := ifinfo(0, 0, 0)
	b.Text(unix.IFLA_IFNAME, name)
	b.U32(unix.IFLA_EXT_MASK, skipStats)
	answers, err := n.socket.Ask(unix.RTM_GETLINK, 0, b)
	return foundLink(name, answers, err)
}

func foundLink(name string, answers []netlink.Message, err error) (Link, error) {
	if err == nil && len(answers) == 0 {
		err = syscall.ENODEV
	}
	if err != nil {
		kind := fault.KindOf(err)
		if errors.Is(err, syscall.ENODEV) {
			kind = fault.NotFound
		}
		return Link{}, &fault.Error{Op: "find link", On: name, Kind: kind, Err: err}
	}
	return parseLink(answers[0].Data)
}

// AddAddress gives a link an address; it is its own, with the network's size.
func (n *Namespace) AddAddress(name string, p Prefix) error {
	l, err := n.Link(name)
	if err != nil {
		return err
	}
	var c changes
	c.address(l.Index, p)
	return n.do(&c)
}

func family(a Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// Addresses lists the addresses of the link with the index, 0 for all.
func (n *Namespace) Addresses(index int) ([]Prefix, error) {
	return n.addresses(func(of int, _ []byte) bool { return index == 0 || of == index })
}

// addresses lists those that are wanted: by their link, and by the data of their
// RTM_NEWADDR.
func (n *Namespace) addresses(wanted func(link int, data []byte) bool) ([]Prefix, error) {
	answers, err := n.socket.Ask(unix.RTM_GETADDR, unix.NLM_F_DUMP, make(netlink.Body, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, named("list addresses", "", err)
	}
	var all []Prefix
	for _, m := range answers {
		link, p, err := parseAddress(m.Data)
		if err != nil {
			return nil, named("list addresses", "", err)
		}
		if wanted(link, m.Data) {
			all = append(all, p)
		}
	}
	return all, nil
}

// AddRoute adds r to the main table.
func (n *Namespace) AddRoute(r Route) error {
	var c changes
	c.route(r)
	return n.do(&c)
}

// Routes lists the routes of all tables, those to own addresses too.
func (n *Namespace) Routes() ([]Route, error) {
	answers, err := n.socket.Ask(unix.RTM_GETROUTE, unix.NLM_F_DUMP, make(netlink.Body, unix.SizeofRtMsg))
	if err != nil {
		return nil, named("list routes", "", err)
	}
	var all []Route
	for _, m := range answers {
		r, err := parseRoute(m.Data)
		if err != nil {
			return nil, named("list routes", "", err)
		}
		all = append(all, r)
	}
	return all, nil
}

// Numbers of linux/pkt_sched.h.
const (
	tcaKind, tcaOptions                      = 1, 2
	tcaTbfParms, tcaTbfRate64, tcaTbfBurst   = 1, 4, 6
	tcRoot                                   = 0xffffffff
	sizeofTcmsg, sizeofTbfQopt, linkEthernet = 20, 36, 1
)

// Limit limits what a link sends to rate, with a tbf qdisc in place of what it
// had: see tc-tbf(8). The bucket holds 10 ms, at least 16 KiB, the queue
// another 50 ms. Rate 0 takes the limit away.
func (n *Namespace) Limit(name string, rate Rate) error {
	l, err := n.Link(name)
	if err != nil {
		return err
	}
	return n.limit(l, rate)
}

func (n *Namespace) limit(l Link, rate Rate) error {
	var c changes
	c.limit(l, rate)
	err := n.do(&c)
	switch {
	case rate == 0 && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL)):
		return nil // there was none
	case errors.Is(err, syscall.ENOENT):
		return &fault.Error{Op: "limit link", On: l.Name, Kind: fault.Unsupported, Err: fmt.Errorf("this kernel has no tbf qdisc"), Hint: "modprobe sch_tbf"}
	}
	return err
}

func (c *changes) limit(l Link, rate Rate) {
	b := make(netlink.Body, sizeofTcmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(l.Index))
	binary.NativeEndian.PutUint32(b[12:], tcRoot)
	if rate == 0 {
		c.add("take the limit off link", l.Name, unix.RTM_DELQDISC, 0, b)
		return
	}
	b.Text(tcaKind, "tbf")
	b.Nest(tcaOptions, func(o *netlink.Body) { tbf(o, rate, l.MTU) })
	c.add("limit link", l.Name, unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, b)
}

// tbf writes the options of a tbf qdisc: struct tc_tbf_qopt and the numbers
// that do not fit into it.
func tbf(o *netlink.Body, rate Rate, mtu int) {
	const most = 1 << 30
	burst := uint32(min(max(uint64(rate)/100, 16<<10, 2*uint64(mtu)), most))
	parms := make([]byte, sizeofTbfQopt)
	parms[1] = linkEthernet // else the kernel wants a table of times
	binary.NativeEndian.PutUint32(parms[8:], uint32(min(uint64(rate), 1<<32-1)))
	binary.NativeEndian.PutUint32(parms[24:], uint32(min(uint64(rate)/20+uint64(burst), most))) // limit
	o.Add(tcaTbfParms, parms)
	o.U32(tcaTbfBurst, burst)
	if uint64(rate) >= 1<<32 {
		o.U64(tcaTbfRate64, uint64(rate))
	}
}

// Neighbours are the sizes of the tables of neighbours, for IPv4 and IPv6:
// below Soft nothing is thrown away, above Hard nothing is taken. The kernel's
// 128, 512 and 1024 are too few for hundreds of nodes on one bridge.
type Neighbours struct{ Keep, Soft, Hard int }

// SetNeighbours sets them; they are one for all namespaces of the host.
func SetNeighbours(t Neighbours) error {
	for _, family := range []string{"ipv4", "ipv6"} {
		for i, v := range []int{t.Hard, t.Soft, t.Keep} {
			path := "/proc/sys/net/" + family + "/neigh/default/gc_thresh" + strconv.Itoa(3-i)
			if err := sys.WriteKnob(path, strconv.Itoa(v)); err != nil {
				return &fault.Error{Op: "set the size of the neighbour table", On: path, Err: err}
			}
		}
	}
	return nil
}

// isOne reports whether a sysctl of the calling thread's network namespace is 1.
func isOne(knob string) bool {
	v, err := sys.ReadKnob(knob, 16)
	return err == nil && strings.TrimSpace(v) == "1"
}

// Forward makes the namespace a router: packets for others are sent on.
func (n *Namespace) Forward() error {
	all := knob{path: "/proc/sys/net/ipv4/ip_forward", value: "1"}
	if n.Foreign() {
		return n.turn("turn on forwarding", all)
	}
	return n.within(func() error {
		if isOne(all.path) {
			return nil
		}
		if err := sys.WriteKnob(all.path, all.value); err != nil {
			return &fault.Error{Op: "turn on forwarding", Err: err}
		}
		return nil
	})
}

// Forward6 is Forward for IPv6. Links that learn their routes from the
// advertisements of routers, which a router would not, go on doing so.
func (n *Namespace) Forward6() error {
	const all = "/proc/sys/net/ipv6/conf/all/forwarding"
	if n.Foreign() { // whose links have learnt nothing
		return n.turn("turn on forwarding of IPv6", knob{path: all, value: "1"})
	}
	return n.within(func() error {
		if isOne(all) {
			return nil
		}
		links, err := n.Links()
		if err != nil {
			return err
		}
		for _, l := range links {
			knob := "/proc/sys/net/ipv6/conf/" + l.Name + "/accept_ra"
			if isOne(knob) {
				if err := sys.WriteKnob(knob, "2"); err != nil {
					return &fault.Error{Op: "keep the routes of", On: l.Name, Err: err}
				}
			}
		}
		if err := sys.WriteKnob(all, "1"); err != nil {
			return &fault.Error{Op: "turn on forwarding of IPv6", Err: err}
		}
		return nil
	})
}

// DeleteDefault takes the default routes of a family off the main table; none
// is no error.
func (n *Namespace) DeleteDefault(four bool) error {
	b := make(netlink.Body, unix.SizeofRtMsg)
	b[0] = unix.AF_INET6
	if four {
		b[0] = unix.AF_INET
	}
	b[4], b[6] = unix.RT_TABLE_MAIN, unix.RT_SCOPE_NOWHERE
	for {
		_, err := n.socket.Ask(unix.RTM_DELROUTE, 0, b)
		if errors.Is(err, syscall.ESRCH) {
			return nil
		}
		if err != nil {
			return named("delete default route", "", err)
		}
	}
}

// rename gives a link that is down another name.
func (n *Namespace) rename(name, to string) error {
	l, err := n.Link(name)
	if err != nil {
		return err
	}
	b := ifinfo(l.Index, 0, 0)
	b.Text(unix.IFLA_IFNAME, to)
	_, err = n.socket.Ask(unix.RTM_NEWLINK, 0, b)
	return named("rename link to", to, err)
}
