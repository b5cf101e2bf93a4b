package plan

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/stub"
	"kiste/kernel/privilege"
)

// become gives up what the process may not keep, and executes its program.
func (c *compiler) become() error {
	p := c.spec.Process
	c.enterMemory()
	c.fileModes()
	c.keepDescriptors()
	if err := c.trampoline(); err != nil {
		return err
	}
	c.attributes()
	c.labels()
	c.landlock()
	c.enterWorkdir()
	c.rlimits()
	if !p.NoNewPrivileges {
		c.filter()
	}
	c.identity()
	if c.o.DieWithParent {
		// A parent that is gone by now has closed its end of the socket.
		c.child("end with the parent", "", c.prctl("PR_SET_PDEATHSIG", unix.PR_SET_PDEATHSIG, named(uint64(unix.SIGKILL), "SIGKILL")),
			c.call("recvfrom", unix.SYS_RECVFROM, from(Sock), buf(make([]byte, 1), "{}"), num(1), named(unix.MSG_DONTWAIT|unix.MSG_PEEK, "MSG_DONTWAIT|MSG_PEEK"), named(0, "NULL"), named(0, "NULL")).
				want(1).mayFailWith(uintptr(unix.EAGAIN)))
	}
	if p.NoNewPrivileges {
		c.child("gain no privileges by exec", "process.noNewPrivileges", c.prctl("PR_SET_NO_NEW_PRIVS", unix.PR_SET_NO_NEW_PRIVS, num(1)))
		c.filter()
	}
	c.exec()
	return nil
}

// keepDescriptors lets none go through exec but the streams and what is kept.
func (c *compiler) keepDescriptors() {
	text := "keep no descriptors but 0, 1 and 2"
	if c.o.Keep > 0 {
		text += ", and those up to " + strconv.Itoa(2+c.o.Keep)
	}
	c.child(text, "", c.call("close_range", unix.SYS_CLOSE_RANGE, num(uint64(3+c.o.Keep)), named(uint64(^uint32(0)), "~0"), named(unix.CLOSE_RANGE_CLOEXEC, "CLOSE_RANGE_CLOEXEC")))
}

func (c *compiler) fileModes() {
	mask, field := uint64(0o022), ""
	if u := c.spec.Process.User.Umask; u != nil {
		mask, field = uint64(*u), "process.user.umask"
	}
	c.child("mask 0"+octal(mask)+" of new files' modes", field, c.umask(mask))
}

func (c *compiler) filter() {
	f := c.o.Filter
	if len(f.Instructions) == 0 {
		return
	}
	load := c.call("seccomp", unix.SYS_SECCOMP, named(1, "SECCOMP_SET_MODE_FILTER"), named(uint64(f.Flags), hex(uint64(f.Flags))), Arg{Kind: Filter, Bytes: f.Bytes()})
	if f.Flags&privilege.NewListener == 0 {
		c.child(fmt.Sprintf("filter system calls by %d instructions", len(f.Instructions)), "linux.seccomp", load)
		return
	}
	c.listen(load)
}

// Listener begins the message in which a child tells the number of its filter's
// listener, an int32 in the machine's order.
const Listener = "listener"

// checkListener: who is to be asked has to be somewhere.
func (c *compiler) checkListener() error {
	s := c.linux.Seccomp
	if c.o.Filter.Flags&privilege.NewListener != 0 && (s == nil || s.ListenerPath == "") {
		return refused("linux.seccomp.listenerPath", fault.Invalid, "seccomp listenerPath is not set")
	}
	return nil
}

// listen loads a filter that asks a listener. From here on each call may have to
// wait for it, but for write(2), which a profile may not ask about: so the child
// only tells the number, the parent fetches the descriptor, and then lets the
// child go on and hands the listener out.
func (c *compiler) listen(load Call) {
	fd := c.slot("listener")
	message := append([]byte(Listener), 0, 0, 0, 0)
	c.child(fmt.Sprintf("filter system calls by %d instructions, some by a listener", len(c.o.Filter.Instructions)), "linux.seccomp", load.to(fd),
		c.call("write", unix.SYS_WRITE, from(Sock), Arg{Kind: Buf, Bytes: message, Slot: fd, Value: uint64(len(Listener)), Text: "{listener <listener>}"}, num(uint64(len(message)))))
	c.phase++
	c.release()
	c.act("give the listener to "+c.linux.Seccomp.ListenerPath, "linux.seccomp.listenerPath", Act{Kind: ActListener, Path: c.linux.Seccomp.ListenerPath})
	c.child("wait until the parent has the listener", "linux.seccomp", c.call("read", unix.SYS_READ, from(Sock), buf(make([]byte, 1), "{}"), num(1)).want(1))
}

// landlock is one wall more: no device nodes at all, and where the host's
// network or processes are shared, no abstract sockets and no signals across.
// A process that may mount has to be without: Landlock forbids mounting.
func (c *compiler) landlock() {
	caps := c.spec.Process.Capabilities
	if c.o.NoLandlock || c.f.Landlock == nil || caps != nil && slices.Contains(caps.Bounding, "CAP_SYS_ADMIN") {
		return
	}
	r := privilege.Ruleset{Files: unix.LANDLOCK_ACCESS_FS_MAKE_CHAR | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_REFER}
	if !c.fresh["network"] {
		r.Scopes |= privilege.ScopeSockets
	}
	if !c.fresh["pid"] {
		r.Scopes |= privilege.ScopeSignals
	}
	abi := c.f.Landlock()
	r = r.For(abi)
	// Without REFER to handle, any ruleset forbids moving files between
	// directories: worse than no wall.
	if r.Files&unix.LANDLOCK_ACCESS_FS_REFER == 0 {
		return
	}
	ruleset, top := c.slot("ruleset"), c.slot("path")
	attr := r.Attr()
	rule := privilege.PathRule{Path: "/", Allow: unix.LANDLOCK_ACCESS_FS_REFER}.Attr(0, true)
	c.child("let no device nodes be made (Landlock)", "", c.call("landlock_create_ruleset", unix.SYS_LANDLOCK_CREATE_RULESET, buf(attr, ""), num(uint64(len(attr))), num(0)).to(ruleset),
		c.open("/", unix.O_PATH|unix.O_CLOEXEC, 0, "O_PATH|O_CLOEXEC").to(top),
		// The rule holds the descriptor: it is written into its bytes.
		c.call("landlock_add_rule", unix.SYS_LANDLOCK_ADD_RULE, from(ruleset), named(privilege.RulePath, "LANDLOCK_RULE_PATH_BENEATH"), Arg{Kind: Buf, Bytes: rule, Slot: top, Value: 8, Text: "{REFER below <path>}"}, num(0)),
		c.call("landlock_restrict_self", unix.SYS_LANDLOCK_RESTRICT_SELF, from(ruleset), c.landlockLog(abi)))
}

// LandlockLogs is the first version of Landlock that writes down what it refuses.
const LandlockLogs = 7

// landlockLog asks for records of what the program is refused, not only this child.
func (c *compiler) landlockLog(abi int) Arg {
	if c.o.LogDenials && abi >= LandlockLogs {
		return named(unix.LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON, "LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON")
	}
	return num(0)
}

// exec tries the program in each directory of the search path.
func (c *compiler) exec() {
	p := c.spec.Process
	var paths []string
	switch {
	case c.o.Program != "":
		paths = []string{c.o.Program}
	case strings.Contains(p.Args[0], "/"):
		paths = []string{p.Args[0]}
	default:
		for _, dir := range strings.Split(c.search(), ":") {
			paths = append(paths, path.Join("/", dir, p.Args[0]))
		}
	}
	c.env = c.environment()
	calls := make([]Call, 0, someCalls)
	for _, file := range paths {
		calls = c.attempt(calls, file)
	}
	c.child("become "+strings.Join(p.Args, " "), "process.args", append(calls, Call{OnErr: FailNoted})...)
}

// search is where programs are.
func (c *compiler) search() string {
	if c.o.Search != "" {
		return c.o.Search
	}
	for _, e := range slices.Backward(c.spec.Process.Env) {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			return v
		}
	}
	return "/bin:/usr/bin" // where execvp(3) looks
}

// environment is process.env with one value for each name, the last one, and a
// home.
func (c *compiler) environment() []string {
	env := c.spec.Process.Env
	last := make(map[string]int, len(env))
	for i, e := range env {
		name, _, _ := strings.Cut(e, "=")
		last[name] = i
	}
	home, has := last["HOME"]
	needs := c.o.Home != "" && (!has || env[home] == "HOME=")
	if len(last) == len(env) && !needs {
		return env
	}
	out := make([]string, 0, len(last)+1)
	for i, e := range env {
		if name, _, _ := strings.Cut(e, "="); last[name] == i && !(needs && name == "HOME") {
			out = append(out, e)
		}
	}
	if needs {
		out = append(out, "HOME="+c.o.Home)
	}
	return out
}

// attempt adds the calls that try one file.
func (c *compiler) attempt(calls []Call, file string) []Call {
	p := c.spec.Process
	env := Arg{Kind: Vec, Form: Variables, List: &c.env}
	if c.stub == 0 {
		x := c.call("execve", unix.SYS_EXECVE, str(file), Arg{Kind: Vec, List: &p.Args}, env)
		x.OnErr = Note
		return append(calls, x)
	}
	// By the old call: filters are older than faccessat2, and real and
	// effective user are the same by now.
	may := c.call("faccessat", unix.SYS_FACCESSAT, cwd(), str(file), named(unix.X_OK, "X_OK"))
	may.OnErr, may.Skip = Note, 1
	words := append([]string{file}, p.Args...)
	return append(calls, may, c.call("execveat", unix.SYS_EXECVEAT, from(c.stub), str(""),
		Arg{Kind: Vec, List: &words}, env, named(unix.AT_EMPTY_PATH, "AT_EMPTY_PATH")))
}

// binaryIsForeign reports whether Kiste's binary belongs to nobody whom the
// container can be: it is root's, who is not in the container's user namespace.
// An ordinary user's container is that user, who may have a kiste of his own.
func (c *compiler) binaryIsForeign() bool {
	if !c.f.Host || len(c.p.UIDs) == 0 {
		return false
	}
	return !slices.ContainsFunc(c.p.UIDs, func(m IDMap) bool { return m.Outside == 0 && m.Size > 0 })
}

// trampoline puts a tiny program of the host's between this process and the
// container's, where no user namespace keeps the container from writing to the
// file that /proc/PID/exe leads to: else that would be Kiste's own binary
// (CVE-2019-5736); and where the program is to wait. It lies in sealed memory,
// and says on a descriptor above those that are kept why it could not become
// the container's program.
func (c *compiler) trampoline() error {
	if c.binaryIsForeign() && !c.o.Wait {
		return nil
	}
	first := 3 + c.o.Keep
	held, text, build := []Slot{Sock}, "keep the host's binary out of reach", stub.Trampoline
	if c.o.Wait {
		held, text, build = []Slot{Start, Report}, "wait for the start, with the host's binary out of reach", stub.Waiter
	}
	if c.forkLate {
		text = "keep the host's binary out of reach, and let the stub fork into the pid namespace"
		build = func(arch string, fd int, l *stub.Label) ([]byte, error) {
			return stub.Joiner(arch, fd, c.spec.Process.Terminal, l)
		}
	}
	label := c.confineLate(first + len(held))
	if label != nil {
		held = append(held, c.attr)
	}
	program, err := build(runtime.GOARCH, first, label)
	if err != nil {
		return err
	}
	c.p.Above = first + len(held)
	// Above the numbers that the stub knows, whatever is free.
	lowest := max(10, c.p.Above)
	above := func(s, to Slot) Call {
		return c.call("fcntl", unix.SYS_FCNTL, from(s), named(unix.F_DUPFD_CLOEXEC, "F_DUPFD_CLOEXEC"), num(uint64(lowest))).to(to)
	}
	memory := c.slot("memory")
	c.stub = c.slot("trampoline")
	seals := uint64(unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE)
	calls := append(make([]Call, 0, someCalls),
		c.call("memfd_create", unix.SYS_MEMFD_CREATE, str("kiste"), named(unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING, "MFD_CLOEXEC|MFD_ALLOW_SEALING")).to(memory),
		c.call("write", unix.SYS_WRITE, from(memory), buf(program, "{the stub}"), num(uint64(len(program)))).want(len(program)),
		c.call("fcntl", unix.SYS_FCNTL, from(memory), named(unix.F_ADD_SEALS, "F_ADD_SEALS"), named(seals, "F_SEAL_SEAL|F_SEAL_SHRINK|F_SEAL_GROW|F_SEAL_WRITE")),
		above(memory, c.stub))
	if mount := c.linux.MountLabel; mount != "" && c.spec.Process.SelinuxLabel != "" {
		// It is what is executed under the container's label. Where it may not be labelled, the policy may let it be so, too.
		calls = append(calls, c.setLabel(memory, mount).mayFail())
	}
	for i, s := range held {
		up := c.slot(strings.Trim(c.p.slotName(s), "<>") + " above")
		calls = append(calls, above(s, up))
		held[i] = up
	}
	for i, s := range held {
		calls = append(calls, c.call("dup3", unix.SYS_DUP3, from(s), num(uint64(first+i)), num(0)))
	}
	c.child(text, "", calls...)
	return nil
}
