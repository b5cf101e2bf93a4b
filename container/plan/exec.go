package plan

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/kernel/namespace"
	"kiste/kernel/privilege"
)

// A Target is a container that is there, as one more process sees it that is
// to join it.
type Target struct {
	// Namespaces are the kinds in which it is elsewhere than the parent, as
	// in /proc/PID/ns: "mnt", "pid", "user".
	Namespaces []string

	// UIDs and GIDs are the maps of its user namespace, where that is
	// another one.
	UIDs, GIDs []IDMap

	// Tasks are the files of version 1 through which the process enters its
	// cgroups; Cgroup is the directory of version 2 to be born in.
	Tasks  []string
	Cgroup string

	// Alone: nobody else is in its namespaces yet, so nobody has to be kept
	// from looking into the process, and the container's may be looked into
	// by an ordinary user's parent, with whom this process shares its memory.
	Alone bool

	// Root is its root directory, as /proc/PID/root. It is needed where "mnt"
	// is not among Namespaces.
	Root string

	// Linux has what the container's document says of every process in it:
	// Seccomp, Personality, MemoryPolicy, MountLabel. Nil: nothing.
	Linux *specs.Linux
}

// CompileExec makes the plan of one more process in the container t. It joins
// by the pidfd in the slot Container. It is pure; of o, Program, Search, Filter,
// Keyring, Keep, Streams, PlainLines and DieWithParent count. Of f it is Scope
// where a user may not put the process into its cgroup himself.
func CompileExec(p *specs.Process, t Target, o Options, f Facts) (*Plan, error) {
	o.NoLandlock, o.Wait = true, false
	spec := &specs.Spec{Process: p, Linux: &specs.Linux{}}
	if l := t.Linux; l != nil {
		spec.Linux = &specs.Linux{Seccomp: l.Seccomp, Personality: l.Personality, MemoryPolicy: l.MemoryPolicy, MountLabel: l.MountLabel}
	}
	c := &compiler{spec: spec, linux: spec.Linux, o: o, f: f, p: &Plan{Slots: []string{""}, UIDs: t.UIDs, GIDs: t.GIDs, Cgroup: t.Cgroup}, fresh: map[string]bool{}}
	for _, check := range []func() error{c.checkProcess, c.checkLabels, c.checkAttributes, c.checkListener} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	c.act("fork", "", Act{Kind: ActFork})
	initial, final := "", ""
	if a := p.ExecCPUAffinity; a != nil {
		initial, final = a.Initial, a.Final
	}
	if initial != "" {
		c.affinity(initial, "process.execCPUAffinity.initial")
	}
	c.enterCgroups(t.Tasks)
	if f.Scope != "" {
		c.act("let systemd move the child into "+f.Scope, "", Act{Kind: ActScope})
		c.act("let the child go on", "", Act{Kind: ActRelease})
		c.awaitParent()
	}
	if initial == "" || final != "" {
		c.affinity(final, "process.execCPUAffinity.final")
	}
	if err := c.allowLimits(); err != nil {
		return nil, err
	}
	c.privateProc() // the host's, before the container's lies there
	if err := c.enterRoot(t); err != nil {
		return nil, err
	}
	c.forkLate = slices.Contains(t.Namespaces, "pid") && c.mayForkLate()
	c.join(t.Namespaces)
	if !c.forkLate {
		c.child("begin a session", "", c.call("setsid", unix.SYS_SETSID))
	}
	c.keyring()
	c.joinTerminal()
	if err := c.become(); err != nil {
		return nil, err
	}
	c.sort()
	return c.p, nil
}

// mayForkLate reports whether the process may stay out of the pid namespace until
// its last step, in which the stub forks. There whoever has CAP_SYS_PTRACE and
// shares the host's user namespace could look into it as long as it has the
// host's program, memory, descriptors and powers. What a fork would not hand on
// has to be given to the second process.
func (c *compiler) mayForkLate() bool {
	s := c.spec.Process.Scheduler
	resets := s != nil && slices.Contains(s.Flags, specs.SchedFlagResetOnFork)
	return !c.o.ForkEarly && !c.binaryIsForeign() && !c.o.DieWithParent && !resets
}

// enterRoot goes to the root of a container that has no mount namespace, whose
// root that would be.
func (c *compiler) enterRoot(t Target) error {
	switch {
	case slices.Contains(t.Namespaces, "mnt"):
		return nil
	case t.Root == "":
		return &fault.Error{Op: "join container", Kind: fault.Invalid, Err: errors.New("nobody says where its root is")}
	}
	root := c.slot("root")
	c.child("enter the container's root", "root", c.open(t.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0, "O_PATH|O_DIRECTORY|O_CLOEXEC").to(root),
		c.call("fchdir", unix.SYS_FCHDIR, from(root)), c.chrootHere(), c.chdirRoot())
	return nil
}

// allowLimits lets the child raise what it will limit itself to, while it still
// has the host's powers.
func (c *compiler) allowLimits() error {
	for _, r := range c.spec.Process.Rlimits {
		l, err := rlimitOf(r)
		if err != nil {
			return err
		}
		own := privilege.Rlimit{Resource: l.Resource, Name: l.Name}
		if c.f.Limit != nil {
			own.Soft, own.Hard = c.f.Limit(l.Resource)
		}
		if own.Hard < l.Hard {
			own.Soft, own.Hard = max(own.Soft, l.Soft), l.Hard
			c.child("allow "+l.Name+" to be as high as "+amount(l.Hard), "process.rlimits", c.setLimit(r.Type, own))
		}
	}
	if adj := c.spec.Process.OOMScoreAdj; adj != nil {
		fd, value := c.slot("oom_score_adj"), strconv.Itoa(*adj)
		c.child("write "+value+" to oom_score_adj", "process.oomScoreAdj",
			c.open("/proc/self/oom_score_adj", unix.O_WRONLY|unix.O_CLOEXEC, 0, "O_WRONLY|O_CLOEXEC").to(fd), c.write(fd, value))
	}
	return nil
}

// join enters all namespaces of the container at once. Nobody in them may look
// into this process, which has the parent's memory and descriptors
// (CVE-2016-9962).
func (c *compiler) join(elsewhere []string) {
	c.joined = map[string]bool{}
	for _, kind := range elsewhere {
		c.joined[kind] = true
	}
	if !c.alone {
		c.child("let nobody look into this process", "", c.prctl("PR_SET_DUMPABLE", unix.PR_SET_DUMPABLE, num(0)))
	}
	var flags uint64
	var names, kinds []string
	for _, k := range namespace.Kinds() {
		if c.joined[k.File] {
			flags, names, kinds = flags|uint64(k.Flag), append(names, "CLONE_NEW"+strings.ToUpper(k.File)), append(kinds, k.Name)
		}
	}
	c.p.OwnMemory = c.joined["time"]
	if flags != 0 {
		c.child("join the namespaces "+strings.Join(kinds, " "), "linux.namespaces", c.call("setns", unix.SYS_SETNS, from(Container), named(flags, strings.ReplaceAll(strings.Join(names, "|"), "MNT", "NS"))))
	}
	switch {
	case c.forkLate:
		c.p.Fork2 = true
	case c.joined["pid"]:
		c.forkAgain()
	}
	if c.joined["user"] {
		c.beRoot()
	}
}

// beRoot makes the process the root of the user namespace that it is in.
func (c *compiler) beRoot() {
	c.child("be root of the user namespace", "linux.namespaces.user",
		c.call("setresgid", unix.SYS_SETRESGID, num(0), num(0), num(0)),
		c.call("setresuid", unix.SYS_SETRESUID, num(0), num(0), num(0)),
		c.call("setgroups", unix.SYS_SETGROUPS, num(0), num(0)).mayFail())
}

// joinTerminal opens a terminal in the container's devpts. What lies there is
// the container's: no link is followed, and only the master of a terminal
// answers TIOCGPTPEER.
func (c *compiler) joinTerminal() {
	if !c.spec.Process.Terminal {
		return
	}
	c.pts = c.slot("devpts")
	c.child("find the container's terminals", "process.terminal",
		c.openIn(cwd(), "/dev/pts", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS).to(c.pts))
	c.terminal()
}
