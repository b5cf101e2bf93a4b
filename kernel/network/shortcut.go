package network

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/internal/sys"
	"kiste/kernel/network/netlink"
	"kiste/kernel/network/nft"
)

// A frame that one port of a bridge sends to another passes two cables and the
// bridge, each end with a queue of its own. A program at the host's end of the first
// cable knows from a table which port has the address that the frame is for, and
// hands it to that one's inner end: bpf_redirect_peer, as Cilium does. What it does
// not know, it leaves to the bridge: broadcasts, the host, whoever has no shortcut.
//
// Program and table are one for a bridge. They live where they are attached: at the
// bridge itself, where who comes next finds them, and at each port. An entry of
// one who is gone leads nowhere, as his address does.

// shortcuts are a bridge's program and table, by descriptors.
type shortcuts struct{ program, table int }

// The program's name, which changes with what it does, and its table: at the last bits
// of an address in frames, which engine's addresses count by, the address and the index
// of the port that has it; of two with the same the later, and the other is reached by
// the bridge. A hash map would be asked for a whole address, but costs each frame more
// than all else that the program does. After them there is a switch for all.
const (
	shortcutName     = "kiste_shortcut1"
	sizeMAC          = 6
	sizeEntry        = 12
	atIndex          = 8 // in an entry
	countEntries     = 4096
	atSwitch         = countEntries
	shortcutPriority = 0xc000 // as tc(8) chooses: after those that somebody gives one
	shortcutLicense  = "Apache-2.0"
)

// Attributes of linux/pkt_cls.h.
const tcaBPFDescriptor, tcaBPFName, tcaBPFFlags, tcaBPFID = 6, 7, 8, 11

// ingressHandle is that of the queue which stands for what comes in: ffff:.
const ingressHandle = 0xffff0000

// shortcutProgram gives frames that come in, but not those of the bridge itself, to the
// port that table says. Offsets are those of struct __sk_buff.
func shortcutProgram(bridge, table int) []uint64 {
	const (
		load, store      = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W, unix.BPF_STX | unix.BPF_MEM | unix.BPF_W
		loadHalf         = unix.BPF_LDX | unix.BPF_MEM | unix.BPF_H
		storeImm         = unix.BPF_ST | unix.BPF_MEM | unix.BPF_W
		move, moveImm    = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X, unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
		addImm, andImm   = unix.BPF_ALU64 | unix.BPF_ADD | unix.BPF_K, unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
		bigEndian        = unix.BPF_ALU | unix.BPF_END | unix.BPF_TO_BE
		address          = unix.BPF_LD | unix.BPF_IMM | unix.BPF_DW
		ifIs, ifGreater  = unix.BPF_JMP32 | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGT | unix.BPF_X
		ifNone, ifDiffer = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP32 | unix.BPF_JNE | unix.BPF_X
		call, exit       = unix.BPF_JMP | unix.BPF_CALL, unix.BPF_JMP | unix.BPF_EXIT

		index, data, dataEnd = 40, 76, 80

		lookup, changeType, redirectPeer = 1, 32, 155 // enum bpf_func_id
		toHost, next                     = 0, -1      // PACKET_HOST, TC_ACT_UNSPEC

		toEnd = 1<<15 - 1 // stands for a jump to the end until that is known
	)
	p := []uint64{
		sys.BPF(move, 6, 1, 0, 0),
		sys.BPF(load, 2, 1, index, 0),
		sys.BPF(ifIs, 2, 0, toEnd, int32(bridge)),
		sys.BPF(load, 2, 1, data, 0),
		sys.BPF(load, 3, 1, dataEnd, 0),
		sys.BPF(move, 4, 2, 0, 0),
		sys.BPF(addImm, 4, 0, 0, sizeMAC),
		sys.BPF(ifGreater, 4, 3, toEnd, 0),
		sys.BPF(load, 7, 2, 0, 0),     // the address
		sys.BPF(loadHalf, 8, 2, 4, 0), // and its rest
		sys.BPF(storeImm, 10, 0, -4, atSwitch),
		sys.BPF(address, 1, unix.BPF_PSEUDO_MAP_FD, 0, int32(table)),
		0, // the upper half of the number before
		sys.BPF(move, 2, 10, 0, 0),
		sys.BPF(addImm, 2, 0, 0, -4),
		sys.BPF(call, 0, 0, 0, lookup),
		sys.BPF(ifNone, 0, 0, toEnd, 0),
		sys.BPF(load, 1, 0, atIndex, 0),
		sys.BPF(ifNone, 1, 0, toEnd, 0),
		sys.BPF(move, 3, 8, 0, 0),
		sys.BPF(bigEndian, 3, 0, 0, 16),
		sys.BPF(andImm, 3, 0, 0, countEntries-1),
		sys.BPF(store, 10, 3, -4, 0),
		sys.BPF(address, 1, unix.BPF_PSEUDO_MAP_FD, 0, int32(table)),
		0,
		sys.BPF(move, 2, 10, 0, 0),
		sys.BPF(addImm, 2, 0, 0, -4),
		sys.BPF(call, 0, 0, 0, lookup),
		sys.BPF(ifNone, 0, 0, toEnd, 0),
		sys.BPF(load, 1, 0, 0, 0),
		sys.BPF(ifDiffer, 1, 7, toEnd, 0),
		sys.BPF(loadHalf, 1, 0, 4, 0),
		sys.BPF(ifDiffer, 1, 8, toEnd, 0),
		sys.BPF(load, 7, 0, atIndex, 0),
		sys.BPF(ifNone, 7, 0, toEnd, 0),
		sys.BPF(move, 1, 6, 0, 0),
		sys.BPF(moveImm, 2, 0, 0, toHost), // it is not for the cable's outer end, where it came in
		sys.BPF(call, 0, 0, 0, changeType),
		sys.BPF(move, 1, 7, 0, 0),
		sys.BPF(moveImm, 2, 0, 0, 0),
		sys.BPF(call, 0, 0, 0, redirectPeer),
		sys.BPF(exit, 0, 0, 0, 0),
		sys.BPF(moveImm, 0, 0, 0, next),
		sys.BPF(exit, 0, 0, 0, 0),
	}
	const offset, end = 16, 2 // the bits of a jump; the end is so many instructions long
	for i, in := range p {
		if uint16(in>>offset) == toEnd {
			p[i] = in&^(0xffff<<offset) | uint64(len(p)-end-i-1)<<offset
		}
	}
	return p
}

// filterAt is the head of messages about the first of the programs at a link: struct
// tcmsg, for all protocols, at what comes in.
func filterAt(link int) netlink.Body {
	const allProtocols = unix.ETH_P_ALL << 8 // in the order of networks
	b := queueAt(link, 1, ingressHandle)
	binary.NativeEndian.PutUint32(b[16:], shortcutPriority<<16|allProtocols)
	return b
}

func queueAt(link int, handle, parent uint32) netlink.Body {
	b := make(netlink.Body, sizeofTcmsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(link))
	binary.NativeEndian.PutUint32(b[8:], handle)
	binary.NativeEndian.PutUint32(b[12:], parent)
	return b
}

// attach has s look at what comes in at a link. Where it has such a program already
// it is syscall.EEXIST.
func (n *Namespace) attach(s shortcuts, link int) error {
	const ingress, direct = 0xfffffff1, 1 // TC_H_INGRESS, TCA_BPF_FLAG_ACT_DIRECT
	queue := queueAt(link, ingressHandle, ingress)
	queue.Text(tcaKind, "ingress")
	filter := filterAt(link)
	filter.Text(tcaKind, "bpf")
	filter.Nest(tcaOptions, func(o *netlink.Body) {
		o.U32(tcaBPFDescriptor, uint32(s.program))
		o.Text(tcaBPFName, shortcutName)
		o.U32(tcaBPFFlags, direct)
	})
	var c changes
	c.add("make shortcut at link", "", unix.RTM_NEWQDISC, unix.NLM_F_CREATE, queue)
	c.add("make shortcut at link", "", unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, filter)
	return n.do(&c)
}

// shortcutsAt finds those of the link with an index: a bridge, or one of its ports.
// None are syscall.ENOENT.
func (n *Namespace) shortcutsAt(link int) (s shortcuts, err error) {
	answers, err := n.socket.Ask(unix.RTM_GETTFILTER, unix.NLM_F_DUMP, filterAt(link))
	if err != nil {
		return s, err
	}
	for _, m := range answers {
		name, id := parseFilter(m.Data)
		if name != shortcutName || id == 0 {
			continue
		}
		if s.program, err = sys.BPFByID(id); err != nil {
			return s, err
		}
		tables, err := sys.BPFMaps(s.program)
		if err == nil && len(tables) != 1 {
			err = syscall.ENOENT
		}
		if err == nil {
			s.table, err = sys.BPFMapByID(tables[0])
		}
		if err != nil {
			_ = sys.Close(s.program)
		}
		return s, err
	}
	return s, syscall.ENOENT
}

// parseFilter reads the data of an RTM_NEWTFILTER: of a program its name and id.
func parseFilter(data []byte) (name string, id uint32) {
	if len(data) < sizeofTcmsg {
		return "", 0
	}
	options, _ := netlink.Parse(netlink.Find(data[sizeofTcmsg:], tcaOptions))
	for _, o := range options {
		switch o.Kind {
		case tcaBPFName:
			name = netlink.Text(o.Data)
		case tcaBPFID:
			id = netlink.U32(o.Data)
		}
	}
	return name, id
}

// shortcutsOf are those of the bridge, which are made where there are none.
func (n *Namespace) shortcutsOf(bridge int) (s shortcuts, err error) {
	if s, err = n.shortcutsAt(bridge); !errors.Is(err, syscall.ENOENT) {
		return s, err
	}
	if s, err = makeShortcuts(bridge); err != nil {
		return s, err
	}
	if err = n.attach(s, bridge); err == nil {
		return s, nil
	}
	s.close()
	if errors.Is(err, syscall.EEXIST) { // somebody was faster
		return n.shortcutsAt(bridge)
	}
	return s, err
}

func makeShortcuts(bridge int) (s shortcuts, err error) {
	if s.table, err = sys.BPFArray(sizeEntry, countEntries+1, shortcutName); err != nil {
		return s, err
	}
	s.program, err = sys.BPFLoad(unix.BPF_PROG_TYPE_SCHED_CLS, 0, shortcutProgram(bridge, s.table), shortcutLicense, shortcutName)
	if err != nil {
		_ = sys.Close(s.table)
	}
	return s, err
}

func (s shortcuts) close() { _ = errors.Join(sys.Close(s.program), sys.Close(s.table)) }

// lead leads frames for the address to the port, or no longer.
func (s shortcuts) lead(mac string, port int, on bool) error {
	key, err := parseMAC(mac)
	if err != nil {
		return err
	}
	at := uint32(binary.BigEndian.Uint16(key[4:]) % countEntries)
	entry := make([]byte, sizeEntry)
	if on {
		copy(entry, key)
		binary.NativeEndian.PutUint32(entry[atIndex:], uint32(port))
		return sys.BPFPut(s.table, at, entry)
	}
	if err := sys.BPFGet(s.table, at, entry); err != nil || !bytes.Equal(entry[:sizeMAC], key) {
		return err
	}
	return sys.BPFPut(s.table, at, make([]byte, sizeEntry))
}

// allow turns them all on, or leaves all to the bridge.
func (s shortcuts) allow(on bool) error {
	entry := make([]byte, sizeEntry)
	if on {
		entry[atIndex] = 1
	}
	return sys.BPFPut(s.table, atSwitch, entry)
}

// shortcut gives the port of the bridge, whose inner end has the address, a
// shortcut to others, and them one to it where it is open: nothing waits at its outer
// end. As long as the host filters what bridges switch, they are not taken. Kernels
// before 5.10 do not know them, nor may others than root, and both do without.
func (n *Namespace) shortcut(bridge, port int, mac string, open bool) {
	if n.Foreign() {
		return
	}
	filters := n.filters()
	find := n.shortcutsOf
	if filters {
		find = n.shortcutsAt // none need be made
	}
	s, err := find(bridge)
	if err != nil {
		return
	}
	defer s.close()
	if n.settle(s, filters) != nil || s.lead(mac, port, false) != nil { // to one who had the address before
		return
	}
	if n.attach(s, port) == nil && open {
		_ = s.lead(mac, port, true)
	}
}

// reopen is for a port that has a shortcut: frames are led to it again, or, as long as
// some have to wait at its outer end, not.
func (n *Namespace) reopen(port Link, mac string, open bool) {
	if n.Foreign() || port.Master == 0 {
		return
	}
	s, err := n.shortcutsAt(port.Index)
	if err != nil {
		return
	}
	defer s.close()
	_ = s.lead(mac, port.Index, open)
}

// SettleShortcuts looks whether the host filters what bridges switch: the bridge's
// shortcuts are not taken as long as it does. See Endpoint.Shortcut.
func (n *Namespace) SettleShortcuts(bridge string) error {
	if n.Foreign() {
		return nil
	}
	l, err := n.Link(bridge)
	if err != nil {
		return err
	}
	s, err := n.shortcutsAt(l.Index)
	if err != nil {
		return nil // there are none
	}
	defer s.close()
	return n.settle(s, n.filters())
}

// settle turns the switch, unless it stands as it should.
func (n *Namespace) settle(s shortcuts, filters bool) error {
	entry := make([]byte, sizeEntry)
	if err := sys.BPFGet(s.table, atSwitch, entry); err != nil || entry[atIndex] == 1 != filters {
		return err
	}
	if err := s.allow(!filters); err != nil || filters {
		return err
	}
	return s.allow(!n.filters()) // whoever began to filter meanwhile has been heard of before
}

// BridgeNetfilter has the packet filter look at what bridges switch:
// net.bridge.bridge-nf-call-iptables, and -ip6tables.
const BridgeNetfilter = "br_netfilter"

// BridgeFilter names what looks at what bridges switch, in words: the packet filter,
// or rules for bridges, which are chains of nf_tables (those of ebtables included), or
// ebtables' older variant. As long as something does, no shortcuts are taken (see
// Endpoint.Shortcut). Empty: nothing does. Root may ask; what cannot be asked may look.
func (n *Namespace) BridgeFilter() string {
	switch {
	case n.filtersBridges():
		return BridgeNetfilter
	case sys.Access("/sys/module/ebtables", unix.F_OK) == nil:
		return "ebtables-legacy"
	}
	const unknown = "nftables, which cannot be asked"
	socket, err := n.Netlink(unix.NETLINK_NETFILTER)
	if err != nil {
		return unknown
	}
	conn := nft.On(socket)
	defer conn.Close()
	chains, err := conn.ChainsOf(nft.Bridge)
	if err != nil {
		return unknown
	}
	i := slices.IndexFunc(chains, func(c nft.Listed) bool { return c.Type != "" })
	if i < 0 {
		return ""
	}
	return "nftables, chain " + chains[i].Table.String() + " " + chains[i].Name
}

// filters reports whether something looks at what bridges switch.
func (n *Namespace) filters() bool { return n.BridgeFilter() != "" }
