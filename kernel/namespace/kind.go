package namespace

import (
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
)

// A Kind is one of the eight things that Linux can give a process of its own:
// see namespaces(7).
type Kind struct {
	Name     string  // as the command line says it: "mount"
	File     string  // in /proc/PID/ns: "mnt"; "" never
	Children string  // in /proc/PID/ns, of the children to come; "" for most
	OCI      string  // as config.json says it: "network"
	Flag     uintptr // of clone(2), unshare(2) and setns(2)
	Isolates string  // in words
	Parent   bool    // a parent stays: see the package comment
}

// kinds are data that the linker lays out: a start looks into them often.
var kinds = [...]Kind{
	{"user", "user", "", "user", unix.CLONE_NEWUSER, "user and group numbers, and what root may do", true},
	{"cgroup", "cgroup", "", "cgroup", unix.CLONE_NEWCGROUP, "the root of the cgroup tree", false},
	{"ipc", "ipc", "", "ipc", unix.CLONE_NEWIPC, "System V IPC and POSIX message queues", false},
	{"uts", "uts", "", "uts", unix.CLONE_NEWUTS, "host name and NIS domain name", false},
	{"net", "net", "", "network", unix.CLONE_NEWNET, "links, addresses, routes, ports, firewall rules", false},
	{"pid", "pid", "pid_for_children", "pid", unix.CLONE_NEWPID, "process numbers, and which processes are seen", true},
	{"time", "time", "time_for_children", "time", unix.CLONE_NEWTIME, "the monotonic and the boot-time clock", true},
	{"mount", "mnt", "", "mount", unix.CLONE_NEWNS, "which file systems are mounted where", false},
}

// Kinds lists all kinds in the order in which they are to be joined: user
// first, which gives the rights for the others, mount last, which takes
// the host's files away.
func Kinds() []Kind { return slices.Clone(kinds[:]) }

// ParseKind finds a kind by its name, by its file's name or by OCI's word. An
// unknown one is fault.Invalid.
func ParseKind(s string) (Kind, error) {
	for _, k := range &kinds {
		if s == k.Name || s == k.File || s == k.OCI {
			return k, nil
		}
	}
	return Kind{}, &fault.Error{Op: "find namespace kind", On: s, Kind: fault.Invalid,
		Err: fmt.Errorf("there is no such kind"), Hint: "the kinds are " + strings.Join(names(), ", ")}
}

// FlagOf is the flag of clone(2) of what OCI calls so; 0: there is no such kind.
func FlagOf(oci string) uintptr {
	for _, k := range &kinds {
		if k.OCI == oci {
			return k.Flag
		}
	}
	return 0
}

// File is the name in /proc/PID/ns of what OCI calls so; of an unknown word it
// is that word.
func File(oci string) string {
	k, err := ParseKind(oci)
	if err != nil {
		return oci
	}
	return k.File
}

func names() []string {
	var all []string
	for _, k := range &kinds {
		all = append(all, k.Name)
	}
	slices.Sort(all)
	return all
}
