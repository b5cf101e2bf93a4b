package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"kiste/engine/inspect"
)

// A shownPort is one of a container's as its listing shows it.
type shownPort struct {
	inside, host int // host 0: it is not published
	ip, proto    string
}

// shownPorts are a container's ports in order: by number inside, protocol and
// address.
func shownPorts(ports map[string][]inspect.PortJSON) []shownPort {
	var all []shownPort
	for key, bindings := range ports {
		number, proto, _ := strings.Cut(key, "/")
		inside, _ := strconv.Atoi(number)
		if len(bindings) == 0 {
			all = append(all, shownPort{inside: inside, proto: proto})
		}
		for _, b := range bindings {
			host, _ := strconv.Atoi(b.HostPort)
			all = append(all, shownPort{inside, host, b.HostIP, proto})
		}
	}
	slices.SortFunc(all, func(a, b shownPort) int {
		return cmp.Or(cmp.Compare(a.ip, b.ip), cmp.Compare(a.proto, b.proto), cmp.Compare(a.inside, b.inside), cmp.Compare(a.host, b.host))
	})
	return all
}

// portsText is the PORTS of "docker ps": those in a row are one.
func portsText(ports map[string][]inspect.PortJSON) string {
	var words []string
	all := shownPorts(ports)
	for i := 0; i < len(all); {
		n := 1
		for i+n < len(all) && follows(all[i+n-1], all[i+n]) {
			n++
		}
		words = append(words, portText(all[i], all[i+n-1]))
		i += n
	}
	return strings.Join(words, ", ")
}

// follows reports whether b continues the row that a ends.
func follows(a, b shownPort) bool {
	return a.ip == b.ip && a.proto == b.proto && b.inside == a.inside+1 && (a.host == 0 && b.host == 0 || a.host > 0 && b.host == a.host+1)
}

func portText(first, last shownPort) string {
	text := span2(first.inside, last.inside) + "/" + first.proto
	if first.host > 0 {
		text = address(first.ip) + ":" + span2(first.host, last.host) + "->" + text
	}
	return text
}

func span2(first, last int) string {
	if first == last {
		return strconv.Itoa(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

// address is an address before a port.
func address(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}
