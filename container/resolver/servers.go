package resolver

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"kiste/internal/sys"
)

// maxServers is more than the three that the C library asks.
const maxServers = 8

// A server is one that is asked what is not known here.
type server struct {
	addr netip.Addr

	// onHost: only the host reaches it, since it is on its loopback, or on one of
	// its links alone.
	onHost bool

	hosts bool // it is one of the host's, not the container's own
}

// Servers are the name servers of a resolv.conf(5), at most so many, each once.
// What is no address is passed over.
func Servers(text string, most int) (all []netip.Addr) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "nameserver" || len(all) == most {
			continue
		}
		if a, err := netip.ParseAddr(f[1]); err == nil && !slices.Contains(all, a.Unmap()) {
			all = append(all, a.Unmap())
		}
	}
	return all
}

// parseServers are the host's servers. Without any it is the one of the host.
func parseServers(text string) []server {
	var all []server
	for _, a := range Servers(text, maxServers) {
		all = append(all, server{a, hostOnly(a), true})
	}
	if len(all) == 0 {
		all = []server{{netip.AddrFrom4([4]byte{127, 0, 0, 1}), true, true}}
	}
	return all
}

func hostOnly(a netip.Addr) bool {
	return a.IsLoopback() || a.IsUnspecified() || a.Zone() != ""
}

// stub are the addresses where systemd-resolved listens: it knows its servers
// better than whoever asks it, but answers to the host alone.
var stub = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 53}), netip.AddrFrom4([4]byte{127, 0, 0, 54})}

func onlyStub(all []server) bool {
	return !slices.ContainsFunc(all, func(s server) bool { return !slices.Contains(stub, s.addr) })
}

// hostServers are the servers of the host. Each look asks the file system whether
// the file is still the one that was read: by its path, so through whatever links
// and directories lead there now, which no watch of theirs could be surer of.
type hostServers struct {
	path     string // resolv.conf
	resolved string // the one of systemd-resolved, which names the real servers

	mu       sync.Mutex
	from     [2]stamp
	servers  []server
	hasTried map[netip.Addr]time.Time // who has not answered, and until when it is asked last
}

// A stamp tells one content of a file from another.
type stamp struct {
	info os.FileInfo // nil: there is none
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stamp{info}
}

func (s stamp) same(as stamp) bool {
	if s.info == nil || as.info == nil {
		return s.info == as.info
	}
	return os.SameFile(s.info, as.info) && s.info.Size() == as.info.Size() && s.info.ModTime().Equal(as.info.ModTime())
}

// now are the servers as the files have them now.
func (h *hostServers) now() []server {
	from := [2]stamp{stampOf(h.path), stampOf(h.resolved)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.servers != nil && from[0].same(h.from[0]) && from[1].same(h.from[1]) {
		return h.servers
	}
	h.from = from
	h.servers = parseServers(readText(h.path))
	if text := readText(h.resolved); onlyStub(h.servers) && text != "" {
		h.servers = parseServers(text)
	}
	return h.servers
}

// maxFile bounds what is read of a resolv.conf.
const maxFile = 64 << 10

func readText(path string) string {
	b, _ := sys.ReadFile(path, maxFile)
	return string(b)
}

// silence is how long a server that has not answered is asked after the others.
const silence = 10 * time.Second

// silent remembers that a server has not answered.
func (h *hostServers) silent(a netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.hasTried) > 1<<10 { // servers that containers name
		clear(h.hasTried)
	}
	h.hasTried[a] = time.Now().Add(silence)
}

// spoke forgets that.
func (h *hostServers) spoke(a netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.hasTried, a)
}

// inOrder puts those that have not answered lately last.
func (h *hostServers) inOrder(all []server) []server {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.hasTried) == 0 {
		return all
	}
	var good, bad []server
	now := time.Now()
	for _, s := range all {
		if now.Before(h.hasTried[s.addr]) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}
