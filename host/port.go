package host

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"kiste/internal/sys"
)

// maxSockets bounds what is read of a table of sockets.
const maxSockets = 8 << 20

// PortOwner finds a process that has a port of this network namespace: protocol
// is "tcp" or "udp". It gives its pid and its name; 0: nobody was found, as
// where it is somebody else's and this process is not root. Source:
// proc_pid_net(5).
func PortOwner(protocol string, port uint16) (pid int, name string) {
	var sockets []string
	for _, table := range []string{protocol, protocol + "6"} {
		text, err := sys.ReadFile("/proc/net/"+table, maxSockets)
		if err == nil {
			sockets = append(sockets, socketsAt(string(text), port)...)
		}
	}
	if len(sockets) == 0 {
		return 0, ""
	}
	links, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || !strings.HasPrefix(target, "socket:[") {
			continue
		}
		for _, inode := range sockets {
			if target == "socket:["+inode+"]" {
				part := strings.Split(link, "/")
				pid, _ = strconv.Atoi(part[2])
				comm, _ := sys.ReadFile("/proc/"+part[2]+"/comm", 64)
				return pid, strings.TrimSpace(string(comm))
			}
		}
	}
	return 0, ""
}

// socketsAt are the inodes of the sockets of a table that are bound to the port
// and connected to nobody.
func socketsAt(table string, port uint16) (inodes []string) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 {
			continue
		}
		_, local, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(local, 16, 16)
		_, remote, _ := strings.Cut(f[2], ":")
		if ok && err == nil && uint16(n) == port && strings.Trim(remote, "0") == "" && f[9] != "0" {
			inodes = append(inodes, f[9])
		}
	}
	return inodes
}
