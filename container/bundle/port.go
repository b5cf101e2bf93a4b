package bundle

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/kernel/network"
)

// A Port is one of the container's that is to be reached through the host.
type Port struct {
	Proto     string // "tcp", "udp", "sctp"
	Container uint16
	HostIP    string `json:",omitempty"` // empty: all addresses
	Host      uint16 `json:",omitempty"` // 0: one that is free
	HostLast  uint16 `json:",omitempty"` // more than Host: one of these that is free
}

// Key is the port of the container as Docker writes it: "80/tcp".
func (p Port) Key() string { return strconv.Itoa(int(p.Container)) + "/" + p.Proto }

// HostPort is what is asked for of the host as Docker writes it.
func (p Port) HostPort() string {
	switch {
	case p.Host == 0:
		return ""
	case p.HostLast > p.Host:
		return fmt.Sprintf("%d-%d", p.Host, p.HostLast)
	}
	return strconv.Itoa(int(p.Host))
}

// ParsePort reads the value of one -p: [[ADDRESS:]PORT[-PORT]:]PORT[-PORT][/PROTOCOL].
func ParsePort(s string) ([]Port, error) {
	address, host, inside := splitPort(s)
	inside, proto, err := cutProto(inside)
	if err != nil {
		return nil, err
	}
	if inside == "" {
		return nil, fmt.Errorf("no port specified: %s<empty>", s)
	}
	if address != "" {
		a, err := network.ParseAddr(address)
		if err != nil {
			return nil, fmt.Errorf("invalid IP address: %s", address)
		}
		address = a.String()
	}
	first, last, err := parseRange(inside)
	if err != nil {
		return nil, fmt.Errorf("invalid containerPort: %s", inside)
	}
	var from, to uint16
	if host != "" {
		if from, to, err = parseRange(host); err != nil {
			return nil, fmt.Errorf("invalid hostPort: %s", host)
		}
	}
	switch {
	case host == "" || last == first:
	case to-from != last-first:
		return nil, fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", inside, host)
	}
	return spread(Port{Proto: proto, HostIP: address}, first, last, from, to), nil
}

// spread is a range of ports one by one.
func spread(p Port, first, last, from, to uint16) []Port {
	all := make([]Port, 0, int(last-first)+1)
	for i := 0; i <= int(last-first); i++ {
		p.Container = first + uint16(i)
		switch {
		case from == 0:
		case first == last:
			p.Host = from
			if to > from {
				p.HostLast = to
			}
		default:
			p.Host = from + uint16(i)
		}
		all = append(all, p)
	}
	return all
}

// splitPort takes ADDRESS:HOST:CONTAINER apart. An IPv6 address stands in
// brackets, or is what is left of the last two colons.
func splitPort(s string) (address, host, inside string) {
	if rest, ok := strings.CutPrefix(s, "["); ok {
		if a, rest, ok := strings.Cut(rest, "]:"); ok {
			host, inside, more := strings.Cut(rest, ":")
			if !more {
				return a, "", host
			}
			return a, host, inside
		}
	}
	part := strings.Split(s, ":")
	n := len(part)
	switch n {
	case 1:
		return "", "", s
	case 2:
		return "", part[0], part[1]
	}
	return strings.Join(part[:n-2], ":"), part[n-2], part[n-1]
}

func cutProto(s string) (port, proto string, err error) {
	port, proto, _ = strings.Cut(s, "/")
	if proto == "" {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	if !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
		return "", "", fmt.Errorf("invalid proto: %s", proto)
	}
	return port, proto, nil
}

// parseRange reads PORT or PORT-PORT, upwards.
func parseRange(s string) (first, last uint16, err error) {
	a, b, isRange := strings.Cut(s, "-")
	from, err := strconv.ParseUint(a, 10, 16)
	to := from
	if err == nil && isRange {
		to, err = strconv.ParseUint(b, 10, 16)
	}
	if err != nil || from == 0 || to < from {
		return 0, 0, errors.New("want 1 to 65535, or two of these with the lower first")
	}
	return uint16(from), uint16(to), nil
}

// ParseExpose reads the value of one --expose, PORT[-PORT][/PROTOCOL], and gives
// the ports as Docker writes them.
func ParseExpose(s string) ([]string, error) {
	ports, err := ParsePort(s)
	if err != nil || strings.Contains(s, ":") {
		return nil, fmt.Errorf("invalid range format for --expose: %s", s)
	}
	all := make([]string, 0, len(ports))
	for _, p := range ports {
		all = append(all, p.Key())
	}
	return all, nil
}

// Published are the ports that are to be published: those that were asked for,
// each once, and with -P all that are exposed and not among them.
func (w *Wishes) Published(image ImageConfig) []Port {
	var all []Port
	seen := map[Port]bool{}
	for _, p := range w.Ports {
		if !seen[p] {
			seen[p], all = true, append(all, p)
		}
	}
	if !w.PublishAll {
		return all
	}
	for _, key := range w.Exposed(image) {
		ports, err := ParsePort(key)
		if err != nil {
			continue // an image may say anything
		}
		for _, p := range ports {
			if !slices.ContainsFunc(all, func(q Port) bool { return q.Key() == p.Key() }) {
				all = append(all, p)
			}
		}
	}
	return all
}

// Exposed are the ports that the image, --expose and -p name, in order.
func (w *Wishes) Exposed(image ImageConfig) []string {
	var all []string
	for key := range image.ExposedPorts {
		all = append(all, key)
	}
	all = append(all, w.Expose...)
	for _, p := range w.Ports {
		all = append(all, p.Key())
	}
	slices.SortFunc(all, comparePorts)
	return slices.Compact(all)
}

// comparePorts orders by number, then protocol.
func comparePorts(a, b string) int {
	number := func(s string) int {
		port, _, _ := strings.Cut(s, "/")
		n, _ := strconv.Atoi(port)
		return n
	}
	if d := number(a) - number(b); d != 0 {
		return d
	}
	return strings.Compare(a, b)
}
