package namespace

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// Options say what Run makes. The zero value runs $SHELL where it is.
type Options struct {
	// New are the kinds to make.
	New []Kind

	// Join are the namespaces to join in place of new ones.
	Join []Target

	// UIDs and GIDs are the maps of a new user namespace. Empty: nobody is
	// mapped, and everybody is the overflow id, 65534. Where 0 is mapped, the
	// command runs as 0.
	UIDs, GIDs IDMaps

	// Hostname of a new UTS namespace; empty: as outside.
	Hostname string

	// Monotonic and Boottime are added to the clocks of a new time namespace.
	Monotonic, Boottime time.Duration

	// Propagation of all mounts in a new mount namespace: "private", "slave",
	// "shared" or "unchanged". Empty: private.
	Propagation string

	// MountProc mounts a new proc(5) on /proc, which shows the processes of a
	// new pid namespace. It needs a new mount namespace.
	MountProc bool

	// KillChild ends the command when this process ends, however it does.
	KillChild bool

	// Args is the command; its path is looked up inside.
	Args []string
}

// Run runs a command in new namespaces. Where no kind needs a parent (see the
// package comment) it returns only when it failed. Else it hands the command
// the signals that this process gets, and returns its exit code, 128+n after
// signal n. A command that is not there is fault.NotFound from execve. A
// first process of a pid namespace gets only those signals that it handles,
// and SIGKILL: see pid_namespaces(7).
func Run(o Options) (code int, err error) {
	if err := o.check(); err != nil {
		return 0, err
	}
	var s script
	fds, err := openTargets(o.Join)
	defer closeAll(fds)
	if err != nil {
		return 0, err
	}
	s.unshareFS()
	s.join(o.Join, fds)
	s.create(o)
	s.forkFor(o.New, o.Join)
	s.settle(o)
	s.exec(o.Args)
	ready := func(pid int) error {
		if len(o.UIDs) == 0 && len(o.GIDs) == 0 {
			return nil
		}
		return WriteMaps(pid, o.UIDs, o.GIDs)
	}
	if slices.ContainsFunc(o.New, needsParent) || slices.ContainsFunc(o.Join, func(t Target) bool { return t.Kind.Parent }) {
		return s.fork(ready)
	}
	return 0, s.here()
}

func needsParent(k Kind) bool { return k.Parent }

func (o Options) has(name string) bool {
	return slices.ContainsFunc(o.New, func(k Kind) bool { return k.Name == name })
}

// check refuses what could only fail later and less clearly.
func (o Options) check() error {
	if o.Propagation != "" && propagation(o.Propagation) == 0 && o.Propagation != "unchanged" {
		return bad("take propagation", o.Propagation, "want private, slave, shared or unchanged")
	}
	for _, w := range []struct {
		set   bool
		what  string
		needs string
	}{
		{o.Hostname != "", "a host name", "uts"},
		{o.Monotonic != 0 || o.Boottime != 0, "a clock's offset", "time"},
		{o.MountProc, "a new /proc", "mount"},
		{len(o.UIDs) > 0 || len(o.GIDs) > 0, "an id map", "user"},
	} {
		if w.set && !o.has(w.needs) {
			return bad("set", w.what, "it needs a new "+w.needs+" namespace")
		}
	}
	for i, t := range o.Join {
		if o.has(t.Kind.Name) || slices.ContainsFunc(o.Join[:i], func(other Target) bool { return other.Kind.Name == t.Kind.Name }) {
			return bad("join namespace", t.Path, "there can be only one of kind "+t.Kind.Name)
		}
	}
	if len(o.Hostname) > 64 {
		return bad("set host name", o.Hostname[:64], "it is longer than 64 bytes")
	}
	return nil
}

func bad(op, on, why string) error {
	return &fault.Error{Op: op, On: on, Kind: fault.Invalid, Err: fmt.Errorf("%s", why)}
}

func propagation(word string) uintptr {
	switch word {
	case "private", "":
		return unix.MS_PRIVATE
	case "slave":
		return unix.MS_SLAVE
	case "shared":
		return unix.MS_SHARED
	}
	return 0
}

// A script is the list of calls that leads to the command, with a text for
// each. A thread makes them here, or a forked child does.
type script struct {
	calls []sys.ChildCall
	texts []string
	sock  *int32
	paths []string // where the command may be
	args  []string
	tail  int  // index of the first execve
	clock bool // it joins a time namespace, for which its memory must be its own
}

func (s *script) socket() *int32 {
	if s.sock == nil {
		s.sock = new(int32)
	}
	return s.sock
}

func (s *script) add(text string, nr uintptr, args ...sys.ChildArg) *sys.ChildCall {
	c := sys.ChildCall{Nr: nr}
	copy(c.Args[:], args)
	return s.addCall(text, c)
}

func (s *script) addCall(text string, c sys.ChildCall) *sys.ChildCall {
	s.calls, s.texts = append(s.calls, c), append(s.texts, text)
	return &s.calls[len(s.calls)-1]
}

// unshareFS gives the thread a root and working directory of its own, without
// which it may not join a mount namespace.
func (s *script) unshareFS() {
	s.add("unshare the working directory", unix.SYS_UNSHARE, sys.Number(unix.CLONE_FS))
}

func (s *script) join(targets []Target, fds []int) {
	for i, t := range targets {
		s.clock = s.clock || t.Kind.Name == "time"
		s.add("join "+t.Kind.Name+" namespace "+t.Path, unix.SYS_SETNS, sys.Number(fds[i]), sys.Number(t.Kind.Flag))
	}
}

// create makes the new namespaces that do not wait for a child, and the user
// namespace first, which the others then belong to.
func (s *script) create(o Options) {
	var flags uintptr
	var words []string
	for _, k := range o.New {
		if k.Name != "pid" && k.Name != "time" {
			flags |= k.Flag
			words = append(words, k.Name)
		}
	}
	if flags != 0 {
		s.add("make "+strings.Join(words, ", ")+" namespace", unix.SYS_UNSHARE, sys.Number(flags))
	}
	if o.has("user") {
		s.waitForMaps()
		s.becomeRoot(o.UIDs, o.GIDs)
	}
	if o.has("time") {
		s.setClocks(o)
	}
}

func (s *script) waitForMaps() {
	sock := s.socket()
	s.add("tell the parent", unix.SYS_WRITE, sys.ChildArg{Slot: sock}, sys.BytesOf("r"), sys.Number(1))
	s.addCall("wait for the id maps", sys.NewInbox(0).Receive(sock))
}

// becomeRoot takes the ids 0 where they are mapped: whoever was mapped to
// something else stays that.
func (s *script) becomeRoot(uids, gids IDMaps) {
	_, uid := uids.ToOutside(0)
	_, gid := gids.ToOutside(0)
	if gid {
		if !DeniesGroups(uids, gids) {
			s.add("leave all groups", unix.SYS_SETGROUPS, sys.Number(0), sys.Number(0))
		}
		s.add("become group 0", unix.SYS_SETRESGID, sys.Number(0), sys.Number(0), sys.Number(0))
	}
	if uid {
		s.add("become user 0", unix.SYS_SETRESUID, sys.Number(0), sys.Number(0), sys.Number(0))
	}
}

// setClocks makes a time namespace for the next child, and turns its clocks
// before anybody is in: see time_namespaces(7).
func (s *script) setClocks(o Options) {
	s.add("make time namespace", unix.SYS_UNSHARE, sys.Number(unix.CLONE_NEWTIME))
	if o.Monotonic == 0 && o.Boottime == 0 {
		return
	}
	text := offset("monotonic", o.Monotonic) + offset("boottime", o.Boottime)
	fd := new(int32)
	s.add("own /proc/self", unix.SYS_PRCTL, sys.Number(unix.PR_SET_DUMPABLE), sys.Number(1))
	at := unix.AT_FDCWD
	s.add("open /proc/self/timens_offsets", unix.SYS_OPENAT, sys.Number(at), sys.BytesOf("/proc/self/timens_offsets"), sys.Number(unix.O_WRONLY|unix.O_CLOEXEC)).Out = fd
	s.add("set the clocks", unix.SYS_WRITE, sys.ChildArg{Slot: fd}, sys.BytesOf(text), sys.Number(len(text)))
}

// offset is a line of timens_offsets: seconds may be negative, nanoseconds not.
func offset(clock string, d time.Duration) string {
	seconds, rest := int64(d/time.Second), int64(d%time.Second)
	if rest < 0 {
		seconds, rest = seconds-1, rest+int64(time.Second)
	}
	return clock + " " + strconv.FormatInt(seconds, 10) + " " + strconv.FormatInt(rest, 10) + "\n"
}

// forkFor forks once more where the next child is the first inside.
func (s *script) forkFor(fresh []Kind, joined []Target) {
	var flags uintptr
	again := false
	for _, k := range fresh {
		switch k.Name {
		case "pid":
			flags, again = flags|k.Flag, true
		case "time":
			again = true
		}
	}
	for _, t := range joined {
		again = again || t.Kind.Name == "pid" || t.Kind.Name == "time"
	}
	if !again {
		return
	}
	for _, c := range sys.ForkAgain(flags, s.socket()) {
		s.addCall("make pid namespace", c)
	}
}

// settle furnishes the namespaces from inside.
func (s *script) settle(o Options) {
	if o.Hostname != "" {
		s.add("set host name", unix.SYS_SETHOSTNAME, sys.BytesOf(o.Hostname), sys.Number(len(o.Hostname)))
	}
	if o.has("mount") {
		s.settleMounts(o)
	}
	if o.KillChild {
		s.add("end with the parent", unix.SYS_PRCTL, sys.Number(unix.PR_SET_PDEATHSIG), sys.Number(uintptr(unix.SIGKILL)))
	}
}

func (s *script) settleMounts(o Options) {
	none := sys.BytesOf("none")
	if p := propagation(o.Propagation); p != 0 {
		s.add("make mounts "+o.Propagation, unix.SYS_MOUNT, none, sys.BytesOf("/"), sys.Number(0), sys.Number(unix.MS_REC|p))
	}
	if !o.MountProc {
		return
	}
	// A /proc that is shared would show the new one to the host.
	s.add("make /proc private", unix.SYS_MOUNT, none, sys.BytesOf("/proc"), sys.Number(0), sys.Number(uintptr(unix.MS_REC|unix.MS_PRIVATE))).OnErr = sys.Ignore
	s.add("mount /proc", unix.SYS_MOUNT, sys.BytesOf("proc"), sys.BytesOf("/proc"), sys.BytesOf("proc"), sys.Number(uintptr(unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC)))
}

// defaultPath is where a command is looked for without $PATH: as execvp(3).
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// exec ends the script. A command without a slash may be anywhere on $PATH, as
// seen inside.
func (s *script) exec(args []string) {
	args = orShell(args)
	s.args, s.paths, s.tail = args, candidates(args[0]), len(s.calls)
	argv, env := sys.StringsOf(args), sys.StringsOf(os.Environ())
	for _, p := range s.paths {
		s.add("execute "+args[0], unix.SYS_EXECVE, sys.BytesOf(p), argv, env).OnErr = sys.Note
	}
	s.add("execute "+args[0], 0).OnErr = sys.FailNoted
}

// orShell is args, or the user's shell.
func orShell(args []string) []string {
	if len(args) > 0 {
		return args
	}
	if shell := os.Getenv("SHELL"); shell != "" {
		return []string{shell}
	}
	return []string{"/bin/sh"}
}

func candidates(command string) []string {
	if strings.Contains(command, "/") || command == "" {
		return []string{command}
	}
	path := os.Getenv("PATH")
	if path == "" {
		path = defaultPath
	}
	var all []string
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		all = append(all, dir+"/"+command)
	}
	return all
}

// here makes the calls in a thread of this process, which becomes the command.
func (s *script) here() error {
	// never unlocked: after a failure the thread is of no use to others
	runtime.LockOSThread()
	if err := sys.CallHere(s.calls[:s.tail]); err != nil {
		return s.explain(err)
	}
	return Exec(s.args)
}

// Exec makes this process the command args, looked up on $PATH, $SHELL without
// any. It returns
// only when it failed; a thread that is in namespaces of its own takes the
// whole process there.
func Exec(args []string) error {
	args = orShell(args)
	var err error
	for _, p := range candidates(args[0]) {
		e := sys.Exec(p, args)
		if err == nil || fault.KindOf(err) == fault.NotFound {
			err = e
		}
	}
	return notStarted(args[0], err)
}

// notStarted is a command's failure to start; its kind tells the exit code.
func notStarted(command string, err error) error {
	kind := fault.KindOf(err)
	if kind != fault.NotFound {
		kind = fault.Denied
	}
	return &NotStarted{&fault.Error{Op: "execute", On: command, Kind: kind, Err: cause(err)}}
}

// NotStarted is the error of a command that could not be started inside
// namespaces that are well. Its kind is fault.NotFound where the command is
// not there.
type NotStarted struct{ Err *fault.Error }

func (e *NotStarted) Error() string { return e.Err.Error() }
func (e *NotStarted) Unwrap() error { return e.Err }

// cause is the errno at the root of err.
func cause(err error) error {
	for {
		inner, ok := err.(interface{ Unwrap() error })
		if !ok || inner.Unwrap() == nil {
			return err
		}
		err = inner.Unwrap()
	}
}

// explain names the call that failed, and what to do about it.
func (s *script) explain(err error) error {
	failed, ok := err.(*sys.ChildError)
	if !ok {
		return &fault.Error{Op: "start in namespaces", Err: err}
	}
	index := min(failed.Index, len(s.texts)-1)
	if index >= s.tail {
		return notStarted(s.args[0], failed.Errno)
	}
	op := s.texts[index]
	return &fault.Error{Op: op, Hint: s.remedy(op, fault.KindOf(failed.Errno)), Err: failed.Errno}
}

func (s *script) remedy(op string, kind fault.Kind) string {
	user := strings.Contains(op, "user") && strings.HasPrefix(op, "make ")
	switch {
	case user && kind != fault.Invalid && userRemedy() != "":
		return userRemedy()
	case kind == fault.Unavailable:
		return "raise the limit in /proc/sys/user, such as max_user_namespaces"
	case kind == fault.Denied && strings.HasPrefix(op, "make ") && !user:
		return "be root, or make a user namespace too: --user --map-root"
	case kind == fault.Denied && strings.HasPrefix(op, "mount /proc"):
		return "the kernel wants a /proc of this user namespace that nothing covers; with --pid it works where /proc is whole"
	}
	return ""
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = sys.Close(fd)
	}
}
