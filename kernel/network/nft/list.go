package nft

import (
	"errors"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/network/netlink"
)

// A Listed chain is one of any table.
type Listed struct {
	Table Table
	Chain
}

// Tables lists the tables of all families.
func (c *Conn) Tables() ([]Table, error) {
	return list(c, unix.NFT_MSG_GETTABLE, "list tables", head(0), parseTable)
}

// Chains lists the chains of all tables.
func (c *Conn) Chains() ([]Listed, error) { return c.ChainsOf(0) }

// ChainsOf lists the chains of a family's tables.
func (c *Conn) ChainsOf(f Family) ([]Listed, error) {
	return list(c, unix.NFT_MSG_GETCHAIN, "list chains", head(f), parseChain)
}

// A ListedRule is one of a chain of anybody's.
type ListedRule struct {
	Chain, Comment string // what its maker has said of it
	Do             []Verbatim
}

// Rules lists those of a table, each chain's in their order. No such table has
// none.
func (c *Conn) Rules(t Table) ([]ListedRule, error) {
	m := head(t.Family)
	m.Text(unix.NFTA_RULE_TABLE, t.Name)
	return list(c, unix.NFT_MSG_GETRULE, "list rules of "+t.String(), m, parseRule)
}

// Elements lists what is in a set. No such set is fault.NotFound.
func (c *Conn) Elements(t Table, set string) ([]Element, error) {
	return elements(c, t, set, parseElements)
}

func elements[T any](c *Conn, t Table, set string, parse func([]byte) ([]T, error)) ([]T, error) {
	m := head(t.Family)
	m.Text(unix.NFTA_SET_ELEM_LIST_TABLE, t.Name)
	m.Text(unix.NFTA_SET_ELEM_LIST_SET, set)
	parts, err := list(c, unix.NFT_MSG_GETSETELEM, "list elements of "+t.String()+" "+set, m, parse)
	return slices.Concat(parts...), err
}

// Table finds a table. No such one is fault.NotFound.
func (c *Conn) Table(f Family, name string) (Table, error) {
	m := head(f)
	m.Text(unix.NFTA_TABLE_NAME, name)
	answers, err := c.socket.Ask(kind(unix.NFT_MSG_GETTABLE), 0, m)
	if err == nil && len(answers) == 0 {
		err = syscall.ENOENT
	}
	if err != nil {
		return Table{}, &fault.Error{Op: "find table", On: f.String() + " " + name, Kind: kindOf(err), Err: err, Hint: hint(err)}
	}
	return parseTable(answers[0].Data)
}

// tries bounds how often a list is asked for again: it is torn when somebody
// changes it meanwhile.
const tries = 20

func list[T any](c *Conn, message uint16, op string, body netlink.Body, parse func([]byte) (T, error)) ([]T, error) {
	var answers []netlink.Message
	err := error(syscall.EINTR)
	for i := 0; i < tries && errors.Is(err, syscall.EINTR); i++ {
		answers, err = c.socket.Ask(kind(message), unix.NLM_F_DUMP, body)
	}
	all := make([]T, 0, len(answers))
	for _, m := range answers {
		if err != nil {
			break
		}
		var one T
		one, err = parse(m.Data)
		all = append(all, one)
	}
	if err != nil {
		return nil, &fault.Error{Op: op, Kind: kindOf(err), Err: err, Hint: hint(err)}
	}
	return all, nil
}

// body is what comes after the struct nfgenmsg.
func body(data []byte) (Family, []netlink.Attribute, error) {
	if len(data) < 4 {
		return 0, nil, netlink.ErrShort()
	}
	attributes, err := netlink.Parse(data[4:])
	return Family(data[0]), attributes, err
}

func parseTable(data []byte) (Table, error) {
	family, attributes, err := body(data)
	t := Table{Family: family}
	for _, a := range attributes {
		switch a.Kind {
		case unix.NFTA_TABLE_NAME:
			t.Name = netlink.Text(a.Data)
		case tableUserdata:
			t.Comment = parseComment(a.Data)
		}
	}
	return t, err
}

func parseChain(data []byte) (Listed, error) {
	family, attributes, err := body(data)
	c := Listed{Table: Table{Family: family}}
	for _, a := range attributes {
		switch a.Kind {
		case unix.NFTA_CHAIN_TABLE:
			c.Table.Name = netlink.Text(a.Data)
		case unix.NFTA_CHAIN_NAME:
			c.Name = netlink.Text(a.Data)
		case unix.NFTA_CHAIN_TYPE:
			c.Type = netlink.Text(a.Data)
		case unix.NFTA_CHAIN_POLICY:
			c.Drop = netlink.Big32(a.Data) == verdictDrop
		case unix.NFTA_CHAIN_HOOK:
			c.Hook = Hook(netlink.Big32(netlink.Find(a.Data, unix.NFTA_HOOK_HOOKNUM)))
			c.Priority = int32(netlink.Big32(netlink.Find(a.Data, unix.NFTA_HOOK_PRIORITY)))
			c.Device = netlink.Text(netlink.Find(a.Data, unix.NFTA_HOOK_DEV))
		}
	}
	return c, err
}

func parseRule(data []byte) (ListedRule, error) {
	_, attributes, err := body(data)
	var r ListedRule
	for _, a := range attributes {
		switch a.Kind {
		case unix.NFTA_RULE_CHAIN:
			r.Chain = netlink.Text(a.Data)
		case unix.NFTA_RULE_USERDATA:
			r.Comment = parseComment(a.Data)
		case unix.NFTA_RULE_EXPRESSIONS:
			var wrong error
			r.Do, wrong = parseVerbatim(a.Data)
			err = errors.Join(err, wrong)
		}
	}
	return r, err
}

func parseElements(data []byte) ([]Element, error) {
	_, attributes, err := body(data)
	var all []Element
	for _, a := range attributes {
		if a.Kind != unix.NFTA_SET_ELEM_LIST_ELEMENTS {
			continue
		}
		list, err := netlink.Parse(a.Data)
		for _, e := range list {
			all = append(all, parseElement(e.Data))
		}
		if err != nil {
			return all, err
		}
	}
	return all, err
}

func parseElement(data []byte) Element {
	var e Element
	attributes, _ := netlink.Parse(data)
	for _, a := range attributes {
		switch a.Kind {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = netlink.Find(a.Data, unix.NFTA_DATA_VALUE)
		case elementEnd:
			e.End = netlink.Find(a.Data, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_DATA:
			e.Data = netlink.Find(a.Data, unix.NFTA_DATA_VALUE)
		case unix.NFTA_SET_ELEM_USERDATA:
			e.Comment = parseComment(a.Data)
		}
	}
	return e
}

// parseComment finds the comment in userdata: a list of a kind, a length and
// as many bytes.
func parseComment(b []byte) string {
	for len(b) >= 2 {
		size := int(b[1])
		if size > len(b)-2 {
			return ""
		}
		if b[0] == 0 {
			return netlink.Text(b[2 : 2+size])
		}
		b = b[2+size:]
	}
	return ""
}

// A Watch hears what changes in the packet filter, whoever does it.
type Watch struct{ watch *netlink.Watch }

// A Change is news of a Watch.
type Change struct {
	Table   Table
	Deleted bool // the table, or something in it
	Whole   bool // it is about the table itself
	Set     string
}

// groupTables is NFNLGRP_NFTABLES of linux/netfilter/nfnetlink.h.
const groupTables = 7

// NewWatch hears of the calling thread's network namespace.
func NewWatch() (*Watch, error) {
	w, err := netlink.Join(unix.NETLINK_NETFILTER, groupTables)
	if err != nil {
		return nil, &fault.Error{Op: "watch the packet filter", Err: err, Hint: hint(err)}
	}
	return &Watch{w}, nil
}

// FD is readable when there is news, for poll(2).
func (w *Watch) FD() int { return w.watch.FD() }

// Close gives the descriptor back.
func (w *Watch) Close() error { return w.watch.Close() }

// Next waits for news. Lost says that there was more than the kernel kept: look
// for yourself.
func (w *Watch) Next() (all []Change, lost bool, err error) {
	messages, err := w.watch.Next()
	if errors.Is(err, syscall.ENOBUFS) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, &fault.Error{Op: "watch the packet filter", Err: err}
	}
	for _, m := range messages {
		if c, ok := parseChange(m); ok {
			all = append(all, c)
		}
	}
	return all, false, nil
}

// changes are the messages of a Change. The name of the table is the first
// attribute of all.
func changes() map[uint16]Change {
	return map[uint16]Change{
		unix.NFT_MSG_NEWTABLE: {Whole: true}, unix.NFT_MSG_DELTABLE: {Whole: true, Deleted: true},
		unix.NFT_MSG_NEWCHAIN: {}, unix.NFT_MSG_DELCHAIN: {Deleted: true},
		unix.NFT_MSG_NEWRULE: {}, unix.NFT_MSG_DELRULE: {Deleted: true},
		unix.NFT_MSG_NEWSET: {}, unix.NFT_MSG_DELSET: {Deleted: true},
		unix.NFT_MSG_NEWSETELEM: {}, unix.NFT_MSG_DELSETELEM: {Deleted: true},
	}
}

func parseChange(m netlink.Message) (Change, bool) {
	c, ok := changes()[m.Kind&0xff]
	if !ok || m.Kind>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return c, false
	}
	family, attributes, _ := body(m.Data)
	c.Table.Family = family
	for _, a := range attributes {
		switch {
		case a.Kind == unix.NFTA_TABLE_NAME:
			c.Table.Name = netlink.Text(a.Data)
		case a.Kind == unix.NFTA_SET_ELEM_LIST_SET && isElements(m.Kind):
			c.Set = netlink.Text(a.Data)
		}
	}
	return c, c.Table.Name != ""
}

func isElements(k uint16) bool {
	return k&0xff == unix.NFT_MSG_NEWSETELEM || k&0xff == unix.NFT_MSG_DELSETELEM
}

// CountRules is the number of rules of a chain; without one, of all chains.
func (c *Conn) CountRules(t Table, chain string) (int, error) {
	m := head(t.Family)
	m.Text(unix.NFTA_RULE_TABLE, t.Name)
	if chain != "" {
		m.Text(unix.NFTA_RULE_CHAIN, chain)
	}
	return c.count(unix.NFT_MSG_GETRULE, "count rules of "+t.String()+" "+chain, m)
}

// CountSets is the number of sets and maps of a table.
func (c *Conn) CountSets(t Table) (int, error) {
	m := head(t.Family)
	m.Text(unix.NFTA_SET_TABLE, t.Name)
	return c.count(unix.NFT_MSG_GETSET, "count sets of "+t.String(), m)
}

func (c *Conn) count(message uint16, op string, m netlink.Body) (int, error) {
	all, err := list(c, message, op, m, func([]byte) (struct{}, error) { return struct{}{}, nil })
	return len(all), err
}
