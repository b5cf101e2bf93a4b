package engine

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/engine/inspect"
)

// What a program says of an error, beside what its container is made of, often tells
// which wall it was. It stays a guess: the words are the program's own, and what they
// say is not to be trusted with more than a sentence.

// A saying is a line of a log, and the first path in it, which may be empty.
type saying struct {
	c        *Container
	line     string // in small letters
	path     string
	landlock int // the version that the kernel has; 0: none
}

// sayingBytes is how much of a line is looked at.
const sayingBytes = 2048

func (v Evidence) sayings(c *Container) (all []saying) {
	for _, line := range v.Log {
		line = line[:min(len(line), sayingBytes)]
		all = append(all, saying{c, strings.ToLower(line), pathIn(line), v.Landlock})
	}
	return all
}

// pathIn is the first absolute path in a line: up to a space, or within quotation
// marks. The place of a program that speaks for itself, as in "/bin/sh: 1: ", is none.
func pathIn(line string) string {
	const around = " \t'\"`‘’“”([=<"
	for at := 0; at < len(line); {
		begin := strings.IndexByte(line[at:], '/')
		if begin < 0 {
			return ""
		}
		begin += at
		end := begin + strings.IndexAny(line[begin:]+" ", " \t'\"`‘’“”)],;:<>|\r\n")
		if p := strings.TrimRight(line[begin:end], ".!?"); (begin == 0 || strings.ContainsAny(lastRune(line[:begin]), around)) && len(p) > 1 && !speaks(line, begin, end) {
			return path.Clean(p)
		}
		at = end + 1
	}
	return ""
}

func lastRune(s string) string {
	r := []rune(s[max(0, len(s)-4):])
	return string(r[len(r)-1:])
}

// speaks reports whether what begins a line is who says the rest.
func speaks(line string, begin, end int) bool {
	return begin == 0 && strings.HasPrefix(line[end:], ": ") && strings.Contains(line[end+2:], ": ")
}

func (s saying) has(words ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(s.line, w) })
}

// A guess is a reason that fits, or none: ok is false.
type guess func(s saying) (f Finding, ok bool)

// guesses are tried in their order, for a line that has the words of the clue.
func guesses() map[string][]guess {
	return map[string][]guess{
		"Operation not permitted": {guessOutside, guessCapability},
		"Permission denied":       {guessNode, guessOwner},
		"Read-only file system":   {guessReadOnly},
		"No space left on device": {guessWatches, guessFull},
		"Address already in use":  {guessPort},
		nameUnknown:               {guessName},
		nameFailed:                {guessName},
	}
}

const (
	nameUnknown = "Name or service not known"
	nameFailed  = "Temporary failure in name resolution"
)

// guessed is the reason that fits the last line with one of the clue's words.
func (c clue) guessed(all []saying) (Finding, bool) {
	for _, s := range slices.Backward(all) {
		if !s.has(c.lower()...) {
			continue
		}
		for _, g := range guesses()[c.words] {
			if f, ok := g(s); ok {
				f.Says = fmt.Sprintf("Its last words have %q: probably %s.", c.words, f.Says)
				return f, true
			}
		}
	}
	return Finding{}, false
}

// spec is what the container was compiled into; of one that was not, nothing.
func (s saying) spec() *specs.Spec {
	if s.c.Result == nil || s.c.Result.Spec == nil {
		return &specs.Spec{}
	}
	return s.c.Result.Spec
}

// below reports whether a clean path is a directory's, or below it.
func below(p, dir string) bool {
	return dir == "/" || p == dir || strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/")
}

// mount is the mount that the path of s is on, and the option that asked for it,
// where one has; nil: the root.
func (s saying) mount() (m *specs.Mount, asked *bundle.Mount) {
	for i, o := range s.spec().Mounts {
		if s.path != "" && below(s.path, o.Destination) && (m == nil || len(o.Destination) >= len(m.Destination)) {
			m = &s.spec().Mounts[i]
		}
	}
	if m == nil {
		return nil, nil
	}
	for i, o := range s.c.Wishes.Mounts {
		if path.Clean(o.Target) == path.Clean(m.Destination) {
			asked = &s.c.Wishes.Mounts[i]
		}
	}
	return m, asked
}

func wish(m *bundle.Mount) string { return strings.TrimSpace(m.Option + " " + m.Text) }

// guessReadOnly tells what is read-only of the place.
func guessReadOnly(s saying) (Finding, bool) {
	if s.path == "" {
		return s.onlyRoot()
	}
	if l := s.spec().Linux; l != nil && slices.ContainsFunc(l.ReadonlyPaths, func(p string) bool { return below(s.path, p) }) {
		f := Finding{fmt.Sprintf("%q is a setting of the kernel, which a container may only read", s.path), "--security-opt systempaths=unconfined"}
		if name, ok := strings.CutPrefix(s.path, "/proc/sys/"); ok {
			f.Remedy = "--sysctl " + quoted(strings.ReplaceAll(name, "/", ".")) + "=VALUE at run, for those of its own namespaces; set others on the host"
		}
		return f, true
	}
	m, asked := s.mount()
	switch {
	case asked != nil && (asked.ReadOnly || slices.Contains(m.Options, "ro")):
		return Finding{fmt.Sprintf("%q is below %q, which is mounted read-only (%s)", s.path, m.Destination, wish(asked)), "leave out ro (readonly) there"}, true
	case asked != nil:
		return Finding{}, false // by its own file system
	case m != nil && slices.Contains(m.Options, "ro"):
		return Finding{fmt.Sprintf("%q is below %q, which is read-only in containers", s.path, m.Destination), "--privileged, if it may do everything; else it has to do without"}, true
	case m == nil && s.c.Wishes.ReadOnly:
		return Finding{fmt.Sprintf("%q is on its root, which --read-only makes so", s.path), "--tmpfs " + quoted(path.Dir(s.path)) + ", or a volume there (-v NAME:" + quoted(path.Dir(s.path)) + "), or no --read-only"}, true
	}
	return Finding{}, false
}

// onlyRoot is for words without a path, where nothing but the root can be meant.
func (s saying) onlyRoot() (Finding, bool) {
	if !s.c.Wishes.ReadOnly || slices.ContainsFunc(s.c.Wishes.Mounts, func(m bundle.Mount) bool { return m.ReadOnly }) {
		return Finding{}, false
	}
	return Finding{"it has written on its root, which --read-only makes so", "--tmpfs DIR or a volume (-v NAME:DIR) for what it writes, or no --read-only"}, true
}

// quoted is a word of a line for a command line, as it is where that is plain.
func quoted(word string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+", r)
	}
	if strings.IndexFunc(word, func(r rune) bool { return !plain(r) }) < 0 {
		return word
	}
	return fmt.Sprintf("%q", word)
}

// landlocked reports whether package plan gives the container the wall of Landlock.
func (s saying) landlocked() bool {
	return s.landlock >= landlockUsed && s.c.Result != nil && !s.c.Result.NoLandlock && !s.c.Wishes.Security.NoLandlock && !slices.Contains(s.c.caps().Names(), "CAP_SYS_ADMIN")
}

// Versions of Landlock: the first that package plan uses, and that knows scopes.
const (
	landlockUsed   = 2
	landlockScopes = 6
)

// guessNode is for device nodes: Landlock is asked before capabilities are.
func guessNode(s saying) (Finding, bool) {
	if !s.has("mknod", "make device", "device node") || !s.landlocked() {
		return Finding{}, false
	}
	return Finding{"Landlock, under which no device nodes are made in containers", "--device PATH gives it one of the host's"}, true
}

// guessOutside is for what Landlock keeps inside where a namespace is shared.
func guessOutside(s saying) (Finding, bool) {
	w := s.c.Wishes
	if s.landlock < landlockScopes || !s.landlocked() {
		return Finding{}, false
	}
	switch {
	case w.PID.Kind == bundle.HostNS && s.has("kill"):
		return Finding{"Landlock, under which a container with --pid host sends no signals to processes outside", "--security-opt landlock=off"}, true
	case w.Network.Kind == bundle.HostNS && s.has("connect") && s.has("@", "abstract"):
		return Finding{"Landlock, under which a container with --network host does not reach abstract sockets of processes outside", "--security-opt landlock=off"}, true
	}
	return Finding{}, false
}

// guessOwner is for files of others.
func guessOwner(s saying) (Finding, bool) {
	m, asked := s.mount()
	switch {
	case s.path == "":
	case asked != nil && asked.Type == "bind":
		return Finding{fmt.Sprintf("%q is below a directory of the host (%s), whose owners and modes do not let its user in", s.path, wish(asked)), "look at ls -ln there; -v ...:U gives all to its user, --user names another"}, true
	case asked != nil && slices.Contains(m.Options, "noexec") && s.has("exec", "not execute", "cannot run"):
		return Finding{fmt.Sprintf("%q is below %q, from which nothing can be executed (%s)", s.path, m.Destination, wish(asked)), "--tmpfs " + quoted(m.Destination) + ":exec"}, true
	case asked == nil && s.c.Result != nil && !rootUser(s.c.Result.User):
		return Finding{fmt.Sprintf("%q lets other users in than %q, as which it runs", s.path, s.c.Result.User), "chown or chmod it in the image, a volume for what it writes, or --user root"}, true
	}
	return Finding{}, false
}

func rootUser(user string) bool {
	name, _, _ := strings.Cut(user, ":")
	return name == "" || name == "0" || name == "root"
}

// needs are which capability the kernel wants for what programs say they tried.
func needs() []struct {
	words []string
	cap   string
} {
	return []struct {
		words []string
		cap   string
	}{
		{[]string{"rtnetlink", "iptables", "ip6tables", "nft", "ip link", "ip route", "tun device", "siocs"}, "CAP_NET_ADMIN"},
		{[]string{"ping", "raw socket", "icmp", "tcpdump", "sock_raw"}, "CAP_NET_RAW"},
		{[]string{"ptrace", "strace"}, "CAP_SYS_PTRACE"},
		{[]string{"mknod"}, "CAP_MKNOD"},
		{[]string{"chroot"}, "CAP_SYS_CHROOT"},
		{[]string{"chown", "ownership", "change owner"}, "CAP_CHOWN"},
		{[]string{"settimeofday", "cannot set date", "set clock", "adjtime", "date:"}, "CAP_SYS_TIME"},
		{[]string{"setpriority", "nice:", "renice", "sched_set"}, "CAP_SYS_NICE"},
		{[]string{"mlock", "lock memory"}, "CAP_IPC_LOCK"},
		{[]string{"kernel buffer", "dmesg", "klogctl", "syslog"}, "CAP_SYSLOG"},
		{[]string{"modprobe", "insmod", "init_module"}, "CAP_SYS_MODULE"},
		{[]string{"setgroups", "setgid", "cannot set groups"}, "CAP_SETGID"},
		{[]string{"setuid", "cannot set user", "su:"}, "CAP_SETUID"},
		{[]string{"mount", "sethostname", "swapon", "pivot_root", "unshare"}, "CAP_SYS_ADMIN"},
	}
}

// guessCapability names what is missing for what the line speaks of. What the
// container has cannot be missing.
func guessCapability(s saying) (Finding, bool) {
	has := s.c.caps().Names()
	for _, n := range needs() {
		if !s.has(n.words...) {
			continue
		}
		if slices.Contains(has, n.cap) {
			return Finding{}, false
		}
		name := strings.TrimPrefix(n.cap, "CAP_")
		return Finding{"for want of the capability " + name, "--cap-add " + name + " at run"}, true
	}
	return Finding{}, false
}

// guessWatches is for inotify(7), which says the same of a limit.
func guessWatches(s saying) (Finding, bool) {
	if !s.has("inotify", "watch") {
		return Finding{}, false
	}
	return Finding{"no file system is full: its user has no more watches of inotify", "sysctl fs.inotify.max_user_watches=524288 on the host, which all containers of a user share"}, true
}

// guessFull tells which file system it is.
func guessFull(s saying) (Finding, bool) {
	m, asked := s.mount()
	switch {
	case m == nil:
		return Finding{}, false
	case path.Clean(m.Destination) == "/dev/shm":
		return Finding{fmt.Sprintf("%q is in /dev/shm, which is full", s.path), "more of --shm-size at run"}, true
	case asked == nil:
		return Finding{}, false
	case m.Type == "tmpfs":
		return Finding{fmt.Sprintf("%q is below %q, which is full (%s), or its memory is", s.path, m.Destination, wish(asked)), "more of size= (tmpfs-size=) there, and of --memory (-m)"}, true
	}
	return Finding{fmt.Sprintf("%q is below %q, whose file system on the host is full, in bytes or in files (%s)", s.path, m.Destination, wish(asked)), "df and df -i on the host"}, true
}

// guessPort tells who may have the port.
func guessPort(s saying) (Finding, bool) {
	switch n := s.c.Wishes.Network; n.Kind {
	case bundle.HostNS:
		return Finding{"its network is the host's (--network host), where somebody listens there already", "ss -ltnup on the host names who; another port, or a network of its own with -p"}, true
	case bundle.Container:
		return Finding{fmt.Sprintf("its network is that of the container %q, where somebody listens there already", n.Of), "another port, or a network of its own"}, true
	case bundle.Path:
		return Finding{}, false
	}
	return Finding{"its network is its own, so another process of it listens there already: one that was started twice, or has not ended", "start it once in the container; -p only concerns ports of the host"}, true
}

// guessName tells whom its network lets it ask.
func guessName(s saying) (Finding, bool) {
	w := s.c.Wishes
	switch {
	case w.Network.Kind == bundle.None:
		return Finding{"its network is none, where no names are known but its own and localhost", "--network bridge, or another network"}, true
	case w.Network.Kind != bundle.Default && w.Network.Kind != bundle.Private && w.Network.Kind != bundle.Bridge:
		return Finding{}, false
	case !slices.ContainsFunc(s.c.Endpoints, func(p inspect.Endpoint) bool { return p.User }):
		return Finding{"the name is wrong, or another container's: these are not known on the default network", "a network of your own: kiste network create NAME, and --network NAME for both; --dns for another name server"}, true
	}
	return Finding{"no container that runs on its networks has that name or alias, and no name server outside knows it", "kiste network inspect lists who is there; --network-alias, --dns"}, true
}
