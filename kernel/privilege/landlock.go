package privilege

import (
	"encoding/binary"
	"sync"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// Rights over files, for Ruleset.Files and PathRule.Allow: LANDLOCK_ACCESS_FS_
// of linux/landlock.h in groups that people think in.
const (
	FilesRead  uint64 = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	FilesWrite uint64 = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG |
		unix.LANDLOCK_ACCESS_FS_MAKE_SOCK | unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REFER | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	FilesAll = FilesRead | FilesWrite

	// onFiles are the rights that a rule for a single file may give.
	onFiles uint64 = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// Rights over ports, LANDLOCK_ACCESS_NET_, and scopes, LANDLOCK_SCOPE_. Ports
// are those of TCP sockets: UDP and MPTCP ones pass, unless a seccomp filter
// stops them.
const (
	PortsBind    uint64 = unix.LANDLOCK_ACCESS_NET_BIND_TCP
	PortsConnect uint64 = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	ScopeSockets uint64 = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET // no abstract sockets of processes outside
	ScopeSignals uint64 = unix.LANDLOCK_SCOPE_SIGNAL               // no signals to processes outside
)

// The kinds of rules of landlock_add_rule(2).
const (
	RulePath = 1 // LANDLOCK_RULE_PATH_BENEATH
	RulePort = 2 // LANDLOCK_RULE_NET_PORT
)

// A Ruleset is a Landlock ruleset as data. What it handles is forbidden but
// for what its rules allow; what it does not handle stays as it was.
type Ruleset struct {
	Files  uint64 // rights over files that are handled
	Ports  uint64 // rights over TCP ports that are handled
	Scopes uint64
	Paths  []PathRule
	Net    []PortRule
}

// A PathRule allows rights over a file, or a directory and all below it.
type PathRule struct {
	Path  string
	Allow uint64
}

// A PortRule allows rights over a TCP port; 0 is any that the kernel chooses.
type PortRule struct {
	Port  uint16
	Allow uint64
}

var landlockABI = sync.OnceValue(func() int {
	n, err := sys.LandlockVersion()
	if err != nil {
		return 0
	}
	return n
})

// LandlockABI is the version of Landlock in the running kernel; 0 is none.
func LandlockABI() int { return landlockABI() }

// FilesOnly is a ruleset under which paths in read can be read and executed,
// those in write be changed as well, and no other files be opened at all.
func FilesOnly(read, write []string) Ruleset {
	r := Ruleset{Files: FilesAll}
	for _, path := range read {
		r.Paths = append(r.Paths, PathRule{path, FilesRead})
	}
	for _, path := range write {
		r.Paths = append(r.Paths, PathRule{path, FilesAll})
	}
	return r
}

// known are the rights that a version of Landlock has: of files by ABI, from
// the kernel's Documentation/userspace-api/landlock.rst.
func known(abi int) (files, ports, scopes uint64) {
	const first = 1<<13 - 1
	for _, v := range [...]struct {
		abi                  int
		files, ports, scopes uint64
	}{
		{1, first, 0, 0},
		{2, unix.LANDLOCK_ACCESS_FS_REFER, 0, 0},
		{3, unix.LANDLOCK_ACCESS_FS_TRUNCATE, 0, 0},
		{4, 0, PortsBind | PortsConnect, 0},
		{5, unix.LANDLOCK_ACCESS_FS_IOCTL_DEV, 0, 0},
		{6, 0, 0, ScopeSockets | ScopeSignals},
	} {
		if abi >= v.abi {
			files, ports, scopes = files|v.files, ports|v.ports, scopes|v.scopes
		}
	}
	return files, ports, scopes
}

// For is r without what a version of Landlock does not know, so that as much
// as possible is enforced. Rules that allow nothing then are left out.
func (r Ruleset) For(abi int) Ruleset {
	files, ports, scopes := known(abi)
	out := Ruleset{Files: r.Files & files, Ports: r.Ports & ports, Scopes: r.Scopes & scopes}
	for _, rule := range r.Paths {
		if rule.Allow &= out.Files; rule.Allow != 0 {
			out.Paths = append(out.Paths, rule)
		}
	}
	for _, rule := range r.Net {
		if rule.Allow &= out.Ports; rule.Allow != 0 {
			out.Net = append(out.Net, rule)
		}
	}
	return out
}

// Empty reports whether r handles nothing: the kernel refuses such a ruleset.
func (r Ruleset) Empty() bool { return r.Files|r.Ports|r.Scopes == 0 }

// Attr is struct landlock_ruleset_attr for landlock_create_ruleset(2), as
// short as r allows, so that older kernels take it.
func (r Ruleset) Attr() []byte {
	b := binary.NativeEndian.AppendUint64(nil, r.Files)
	if r.Ports|r.Scopes != 0 {
		b = binary.NativeEndian.AppendUint64(b, r.Ports)
	}
	if r.Scopes != 0 {
		b = binary.NativeEndian.AppendUint64(b, r.Scopes)
	}
	return b
}

// Attr is struct landlock_path_beneath_attr, where fd is the rule's path
// opened with O_PATH. A single file is given the rights that files have.
func (p PathRule) Attr(fd int, dir bool) []byte {
	allow := p.Allow
	if !dir {
		allow &= onFiles
	}
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint64(nil, allow), uint32(fd))
}

// Attr is struct landlock_net_port_attr.
func (p PortRule) Attr() []byte {
	return binary.NativeEndian.AppendUint64(binary.NativeEndian.AppendUint64(nil, p.Allow), uint64(p.Port))
}

// Open makes the kernel's ruleset of r, less what the running kernel does not
// know. The descriptor is the caller's to close. Without Landlock the error is
// fault.Unsupported; a path that is not there is fault.NotFound.
func (r Ruleset) Open() (fd int, err error) {
	if LandlockABI() == 0 {
		return -1, &fault.Error{Op: "restrict files", Kind: fault.Unsupported, Hint: "boot with landlock among the names of the kernel's lsm= option"}
	}
	r = r.For(LandlockABI())
	if r.Empty() {
		return -1, &fault.Error{Op: "restrict files", Kind: fault.Unsupported, Hint: "a newer kernel knows what this ruleset handles"}
	}
	fd, err = sys.LandlockCreateRuleset(r.Attr())
	if err != nil {
		return -1, &fault.Error{Op: "restrict files", Err: err}
	}
	if err := r.add(fd); err != nil {
		sys.Close(fd)
		return -1, err
	}
	return fd, nil
}

func (r Ruleset) add(fd int) error {
	for _, p := range r.Paths {
		if err := p.add(fd); err != nil {
			return &fault.Error{Op: "allow files below", On: p.Path, Err: err}
		}
	}
	for _, p := range r.Net {
		if err := sys.LandlockAddRule(fd, RulePort, p.Attr()); err != nil {
			return &fault.Error{Op: "allow ports", Err: err}
		}
	}
	return nil
}

func (p PathRule) add(ruleset int) error {
	fd, dir, err := sys.OpenPath(p.Path)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.LandlockAddRule(ruleset, RulePath, p.Attr(fd, dir))
}

// Restrict puts r on every thread of this process, for ever, with
// no_new_privs (prctl(2)), which Landlock needs without CAP_SYS_ADMIN.
func (r Ruleset) Restrict() error {
	fd, err := r.Open()
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	if err := sys.PrctlAll(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return &fault.Error{Op: "set no_new_privs", Err: err}
	}
	if err := sys.LandlockRestrictAll(fd); err != nil {
		return &fault.Error{Op: "restrict files", Err: err}
	}
	return nil
}
