package nft

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// A Flow is a connection that the kernel follows, of a protocol with ports.
type Flow struct {
	Family      Family
	Destination []byte // the address that the first packet was for
	Answers     []byte // the address that answers come from: another one where it was changed
	AnswersPort uint16
	Masked      bool // the asker is seen under another address

	first, zone, id []byte // as the kernel tells of them
}

// Numbers of linux/netfilter/nfnetlink_conntrack.h, and the bits of a filter of
// net/netfilter/nf_conntrack_netlink.c.
const (
	flowGet, flowDelete          = 1, 2
	flowFirst, flowReply         = 1, 2
	flowID, flowZone, flowFilter = 12, 18, 25
	flowAddresses, flowProto     = 1, 2
	protoNumber                  = 1
	protoSource, protoTarget     = 2, 3
	filterFirst                  = 1
	filterProto, filterTarget    = 1 << 3, 1 << 5
)

// addressKinds are those of source and destination.
func addressKinds(f Family) (kinds [2]uint16) {
	switch f {
	case IPv4:
		return [2]uint16{1, 2}
	case IPv6:
		return [2]uint16{3, 4}
	}
	return kinds
}

func flowKind(message uint16) uint16 { return unix.NFNL_SUBSYS_CTNETLINK<<8 | message }

// Flows lists the connections whose first packet was of the protocol of layer 4
// and for the port, of IPv4 or IPv6. The kernel chooses them: Linux 5.8.
func (c *Conn) Flows(f Family, proto uint8, port uint16) ([]Flow, error) {
	m := head(f)
	m.Nest(flowFirst, func(t *netlink.Body) {
		t.Nest(flowProto, func(p *netlink.Body) {
			p.U8(protoNumber, proto)
			p.Add(protoTarget, Port(port))
		})
	})
	m.Nest(flowFilter, func(t *netlink.Body) { t.U32(filterFirst, filterProto|filterTarget) })
	answers, err := c.socket.Ask(flowKind(flowGet), unix.NLM_F_DUMP, m)
	if err != nil {
		return nil, &fault.Error{Op: "list connections", Kind: kindOf(err), Err: err, Hint: hint(err)}
	}
	var all []Flow
	for _, a := range answers {
		if flow, ok := parseFlow(a.Data); ok {
			all = append(all, flow)
		}
	}
	return all, nil
}

func parseFlow(data []byte) (f Flow, ok bool) {
	family, attributes, err := body(data)
	f.Family = family
	kinds := addressKinds(family)
	var asker, seen []byte
	for _, a := range attributes {
		switch a.Kind {
		case flowFirst:
			f.first = a.Data
			addresses := netlink.Find(a.Data, flowAddresses)
			asker, f.Destination = netlink.Find(addresses, kinds[0]), netlink.Find(addresses, kinds[1])
		case flowReply:
			addresses := netlink.Find(a.Data, flowAddresses)
			f.Answers, seen = netlink.Find(addresses, kinds[0]), netlink.Find(addresses, kinds[1])
			if port := netlink.Find(netlink.Find(a.Data, flowProto), protoSource); len(port) == 2 {
				f.AnswersPort = binary.BigEndian.Uint16(port)
			}
		case flowZone:
			f.zone = a.Data
		case flowID:
			f.id = a.Data
		}
	}
	f.Masked = !bytes.Equal(asker, seen)
	return f, err == nil && f.Destination != nil && f.Answers != nil
}

// Changed reports whether its packets go elsewhere than they were meant for.
func (f Flow) Changed() bool { return !bytes.Equal(f.Destination, f.Answers) }

// Forget lets the kernel forget a connection: its next packet is as the first.
// One that has ended meanwhile is no error.
func (c *Conn) Forget(f Flow) error {
	m := head(f.Family)
	m.Nest(flowFirst, func(t *netlink.Body) { *t = append(*t, f.first...) })
	for _, a := range []netlink.Attribute{{Kind: flowZone, Data: f.zone}, {Kind: flowID, Data: f.id}} {
		if a.Data != nil {
			m.Add(a.Kind, a.Data)
		}
	}
	_, err := c.socket.Ask(flowKind(flowDelete), 0, m)
	if err != nil && kindOf(err) != fault.NotFound {
		return &fault.Error{Op: "forget connection", Kind: kindOf(err), Err: err, Hint: hint(err)}
	}
	return nil
}
