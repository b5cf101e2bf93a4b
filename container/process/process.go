// Package process carries a plan out: it forks, shakes hands, and stays until
// the program has ended.
//
//	takes    a Plan, standard streams
//	gives    a Process: its pid, its terminal, its end
//	touches  everything that the plan names
//	state    descriptors of this process; the cgroup until Remove
//
// Start does the parent's steps in their order and lets the forked child make
// its calls. When a step fails, on either side, those before it are undone in
// reverse, the child is killed and reaped, and the error names the step. A
// Process is not safe for concurrent use, but for Signal.
package process

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"kiste/container/plan"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/chroot"
	"kiste/kernel/namespace"
	"kiste/kernel/network"
)

// Options say how to carry a plan out.
type Options struct {
	// Files are descriptors 0, 1 and 2 of the program where the plan opens no
	// terminal. Nil is this process's own.
	Files [3]*os.File

	// Start and Report are the FIFOs of a plan that waits, open for reading
	// and writing. They stay the caller's.
	Start, Report *os.File

	// Container is a pidfd of the container that a plan of CompileExec joins.
	// It stays the caller's.
	Container *os.File

	// Born hears of the process as soon as it is there, while it waits: when
	// this process ends before Born has, so does that one. An error undoes
	// the start. Nil: nobody listens.
	Born func(pid int) error

	// Hooks runs the container's hooks of a kind while its process, pid, waits
	// before the pivot. An error undoes the start. Nil: a plan with such
	// hooks fails.
	Hooks func(kind string, pid int) error

	// Names lets somebody answer for names in the network of the process pid,
	// where the plan wants that. An error undoes the start.
	Names func(pid int) error

	// Proxy has somebody listen on the host for the process pid, where the plan
	// wants that. An error undoes the start.
	Proxy func(pid int) error

	// Mounted hears the number of the mount that is going to stay at the
	// plan's Visible, before it is there: who removes the container unmounts
	// it (Unmount). Nil: nobody does.
	Mounted func(id uint64) error

	// Scope lets systemd make a unit with the process pid in it, where the
	// plan wants one, and gives what undoes that.
	Scope func(pid int) (undo func(), err error)

	// Serve starts what serves the network of the process pid, which waits in
	// it. An error undoes the start. Nil: a plan that is served fails.
	Serve func(pid int) error

	// Listener gets a descriptor of the listener of the filter of system calls
	// of the process pid, which is not the callee's to close: to send it to
	// the place that the document names (SendListener). An error undoes the
	// start. Nil: a plan with a listener fails.
	Listener func(pid, fd int) error

	// Trace hears how long each step took: of the parent's as they end, of
	// the child's when it has become its program.
	Trace func(step plan.Step, took time.Duration)

	// FailCall replaces the child's call with this number, counted from 1 as
	// Plan.Calls prints them, by one that fails with ENOSYS. 0: none.
	FailCall int

	// FailAt makes the parent's step with this number fail, counted from 1,
	// for the test of undoing. 0: none.
	FailAt int

	// DieAt makes this process kill itself after the parent's step with this
	// number, and DieCall the child kill it before the call with this number:
	// for the test of what stays then. 0: nobody does.
	DieAt, DieCall int
}

// A Process is a container's first one.
type Process struct {
	PID     int
	Console *os.File // the master of its terminal, or nil
	child   *sys.Child
	undo    []func()
}

// A StepError is a step that failed.
type StepError struct {
	Step plan.Step
	Call *plan.Call // of the child; nil: the parent's
	Err  error
}

func (e *StepError) Error() string { return e.Step.Text + ": " + e.Err.Error() }

func (e *StepError) Unwrap() error { return e.Err }

// A ForkError is a second process that could not be forked late, which a filter
// of system calls can be the reason of: see plan.Options.ForkEarly.
type ForkError struct{ Errno syscall.Errno } // 0: not told

func (e *ForkError) Error() string {
	if e.Errno == 0 {
		return "fork into the pid namespace: the process has ended"
	}
	return "fork into the pid namespace: " + e.Errno.Error()
}

func (e *ForkError) Unwrap() error { return e.Errno }

// Start carries out p. Where the plan ends the child with its parent, that is
// with this process, or with Remove.
func Start(p *plan.Plan, o Options) (*Process, error) {
	r := &run{plan: p, o: o, slots: make([]int32, len(p.Slots))}
	for i, f := range []*os.File{o.Start, o.Report, o.Container} {
		if f != nil {
			r.given[i] = int32(f.Fd())
		}
	}
	if err := r.parent(); err != nil {
		r.abandon()
		return nil, err
	}
	if err := r.hear(); err != nil {
		r.abandon()
		return nil, err
	}
	r.closeAll()
	return &Process{PID: r.child.PID, Console: r.console, child: r.child, undo: r.undo}, nil
}

// A run is a Start under way.
type run struct {
	plan     *plan.Plan
	o        Options
	slots    []int32
	given    [3]int32 // Start, Report, Container
	inboxes  []*sys.Inbox
	received map[plan.Slot]*int32 // where descriptors of the parent's stand
	waits    int                  // how many of them have their call
	outbox   *sys.Outbox
	sock     int32
	calls    *sys.CallList
	made     int     // of the calls, how many of the plan
	origin   []int32 // of each call: its step
	index    []int32 // and its number there
	next     int     // the parent's next step
	sends    []int   // descriptors for the child, in order
	fds      []int   // to close at the end
	child    *sys.Child
	shift    *chroot.Shift // by the container's user namespace
	shifts   []ownShift
	root     int // the detached root, if the parent has made it
	console  *os.File
	listener int
	undo     []func()
	networks networks
	home     []int         // this thread's own namespaces, while it is elsewhere
	second   bool          // the child is the one that it forked
	forked   time.Duration // CLOCK_MONOTONIC at the fork
	clock    *clock
}

// parent does the parent's steps up to the next of the child's.
func (r *run) parent() error {
	steps := r.plan.Steps
	for r.next < len(steps) && steps[r.next].Side == plan.Child {
		r.next++
	}
	for r.next < len(steps) && steps[r.next].Side == plan.Parent {
		i, s := r.next, steps[r.next]
		r.next++
		began := time.Now()
		err := r.act(s.Act)
		if r.o.DieAt == i+1 {
			die()
		}
		if err == nil && r.o.FailAt == i+1 {
			err = errors.New("made to fail")
		}
		if err != nil {
			return &StepError{Step: s, Err: err}
		}
		if r.o.Trace != nil {
			r.o.Trace(s, time.Since(began))
		}
	}
	return nil
}

func (r *run) act(a *plan.Act) error {
	switch a.Kind {
	case plan.ActCgroup:
		err := a.Cgroup.Do()
		if err == nil {
			r.undo = append(r.undo, func() { a.Cgroup.Undo() }) // as a method value it would hold a copy of the step
		}
		return err
	case plan.ActClass:
		err := a.Class.Do()
		if err == nil {
			r.undo = append(r.undo, a.Class.Undo)
		}
		return err
	case plan.ActScope:
		undo, err := r.o.Scope(r.child.PID)
		if err == nil {
			r.undo = append(r.undo, undo)
		}
		return err
	case plan.ActEnter:
		return r.enter(a)
	case plan.ActFork:
		if err := errors.Join(r.fork(), r.leave()); err != nil || r.plan.Fork2 {
			return err
		}
		return r.born()
	case plan.ActMapIDs:
		return namespace.WriteMaps(r.child.PID, idMaps(r.plan.UIDs), idMaps(r.plan.GIDs))
	case plan.ActRlimit:
		return sys.AllowLimit(r.child.PID, a.Rlimit.Resource, a.Rlimit.Hard)
	case plan.ActOOM:
		return oomScore(r.child.PID, a.Value)
	case plan.ActOpen:
		fd, err := sys.OpenFile(a.Path, unix.O_RDONLY)
		return r.send(fd, err)
	case plan.ActRoot, plan.ActBind:
		return r.mount(a)
	case plan.ActCopyUp:
		return r.send(r.copyUp(a))
	case plan.ActDevice:
		return network.Give(a.Name, fmt.Sprintf("/proc/%d/ns/net", r.child.PID), a.Value)
	case plan.ActNames:
		if r.o.Names == nil {
			return &fault.Error{Op: "resolve names", Kind: fault.Unsupported}
		}
		return r.o.Names(r.child.PID)
	case plan.ActProxy:
		if r.o.Proxy == nil {
			return &fault.Error{Op: "proxy ports", Kind: fault.Unsupported}
		}
		return r.o.Proxy(r.child.PID)
	case plan.ActBridge, plan.ActRules, plan.ActEndpoint:
		return r.network(a)
	case plan.ActServe:
		if r.o.Serve == nil {
			return &fault.Error{Op: "serve the network", Kind: fault.Unsupported}
		}
		return r.o.Serve(r.child.PID)
	case plan.ActListener:
		return r.handOut()
	case plan.ActHooks:
		if r.o.Hooks == nil {
			return &fault.Error{Op: "run hooks", Kind: fault.Unsupported}
		}
		return r.o.Hooks(a.Value, r.child.PID)
	case plan.ActRelease:
		return r.release()
	}
	return &fault.Error{Op: "carry out", On: string(a.Kind), Kind: fault.Invalid}
}

func idMaps(in []plan.IDMap) namespace.IDMaps {
	out := make(namespace.IDMaps, len(in))
	for i, m := range in {
		out[i] = namespace.IDMap(m)
	}
	return out
}

// release sends what the child waits for: its descriptors, at most so many in a
// message as unix(7) lets through; later a byte.
func (r *run) release() error {
	for {
		n := min(len(r.sends), plan.InboxSize)
		if err := r.child.Send([]byte{1}, r.sends[:n]); err != nil {
			return err
		}
		if r.sends = r.sends[n:]; len(r.sends) == 0 {
			return nil
		}
	}
}

func oomScore(pid int, value string) error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(value), 0)
}

func (r *run) send(fd int, err error) error {
	if err != nil {
		return err
	}
	r.sends, r.fds = append(r.sends, fd), append(r.fds, fd)
	return nil
}

func (r *run) mount(a *plan.Act) error {
	if a.Mount.Type == "device" {
		fd, err := device(a.Mount, r.plan)
		return r.send(fd, err)
	}
	shift, err := r.shiftFor(a)
	if err != nil {
		return err
	}
	fd, err := detached(a.Mount, shift)
	if errors.Is(err, chroot.ErrShift) {
		err = &fault.Error{Op: "take", On: a.Mount.Source, Kind: fault.Unsupported, Err: err, Hint: "its file system cannot be id-mapped: the mount option noidmap takes it as it is, --userns host shows its owners"}
	}
	if a.Kind == plan.ActRoot && err == nil {
		r.root = fd
		return errors.Join(r.send(fd, nil), r.visible())
	}
	return r.send(fd, err)
}

// visible remembers a root that will be mounted for all to see.
func (r *run) visible() error {
	at := r.plan.Visible
	if at == "" {
		return nil
	}
	id, err := sys.MountID(r.root, "")
	if err != nil {
		return err
	}
	r.undo = append(r.undo, func() { _ = Unmount(at, id) })
	if r.o.Mounted == nil {
		return nil
	}
	return r.o.Mounted(id)
}

// Unmount takes away the root of a container without a mount namespace and all
// that is below, where the mount at that path is still the one with number id.
func Unmount(path string, id uint64) error {
	if now, err := sys.MountID(unix.AT_FDCWD, path); err != nil || now != id {
		return nil
	}
	return sys.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
}

// An ownShift is by the maps of one mount, or of several.
type ownShift struct {
	uids, gids []plan.IDMap
	*chroot.Shift
}

// shiftFor is how a mount is shifted; nil: not at all.
func (r *run) shiftFor(a *plan.Act) (*chroot.Shift, error) {
	switch {
	case !a.IDMap:
		return nil, nil
	case len(a.UIDs) > 0:
		return r.ownShift(a.UIDs, a.GIDs)
	case r.shift == nil:
		f, err := sys.OpenFile(r.usernsPath(), unix.O_RDONLY)
		if err != nil {
			return nil, err
		}
		r.fds = append(r.fds, f)
		r.shift = &chroot.Shift{Userns: f, UID: int(plan.Outside(r.plan.UIDs, 0)), GID: int(plan.Outside(r.plan.GIDs, 0))}
	}
	return r.shift, nil
}

func (r *run) ownShift(uids, gids []plan.IDMap) (*chroot.Shift, error) {
	for _, s := range r.shifts {
		if slices.Equal(s.uids, uids) && slices.Equal(s.gids, gids) {
			return s.Shift, nil
		}
	}
	fd, err := usernsWith(uids, gids)
	if err != nil {
		return nil, err
	}
	r.fds = append(r.fds, fd)
	s := ownShift{uids, gids, &chroot.Shift{Userns: fd, UID: int(plan.Outside(uids, 0)), GID: int(plan.Outside(gids, 0))}}
	r.shifts = append(r.shifts, s)
	return s.Shift, nil
}

// detached makes the mount. A bind whose source is below another process's root
// is taken in that one's mount namespace: the kernel clones no others.
func detached(m chroot.Mount, shift *chroot.Shift) (int, error) {
	pid, source, found := rootOf(m.Source)
	if m.Type != "bind" || !found {
		return m.Detached(shift)
	}
	m.Source = source
	return sys.OnOwnThread(func() (int, error) {
		if err := enterMounts(pid); err != nil {
			return -1, err
		}
		return m.Detached(shift)
	})
}

// rootOf splits /proc/PID/root/PATH.
func rootOf(path string) (pid, rest string, found bool) {
	pid, found = strings.CutPrefix(path, "/proc/")
	if found {
		pid, rest, found = strings.Cut(pid, "/root/")
	}
	return pid, "/" + rest, found && strings.Trim(pid, "0123456789") == ""
}

func enterMounts(pid string) error {
	if err := sys.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	fd, err := sys.OpenFile("/proc/"+pid+"/ns/mnt", unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer sys.Close(fd)
	return sys.Setns(fd, unix.CLONE_NEWNS)
}

// usernsPath is the user namespace of the container: the child's, or the one
// that it is going to join.
func (r *run) usernsPath() string {
	if r.plan.Userns != "" {
		return r.plan.Userns
	}
	return fmt.Sprintf("/proc/%d/ns/user", r.child.PID)
}

// enter takes this thread into a namespace for the time of the fork.
func (r *run) enter(a *plan.Act) error {
	runtime.LockOSThread()
	own, err := sys.OpenFile("/proc/thread-self/ns/"+a.Value, unix.O_RDONLY)
	if err != nil {
		return err
	}
	r.home = append(r.home, own)
	there, err := sys.OpenFile(a.Path, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer sys.Close(there)
	kinds := namespace.Kinds()
	i := slices.IndexFunc(kinds, func(k namespace.Kind) bool { return k.File == a.Value })
	return sys.Setns(there, int(kinds[i].Flag))
}

// leave takes this thread back. Where that fails the thread stays locked, and
// ends with its goroutine.
func (r *run) leave() error {
	var failed error
	for _, fd := range r.home {
		err := sys.Setns(fd, 0)
		sys.Close(fd)
		if err == nil {
			runtime.UnlockOSThread()
		}
		failed = errors.Join(failed, err)
	}
	r.home = nil
	return failed
}

// fork compiles the child's calls and starts it.
func (r *run) fork() error {
	r.makeBoxes()
	if r.o.Trace != nil {
		clock, err := newClock(len(r.plan.Steps))
		if err != nil {
			return err
		}
		r.clock = clock
	}
	r.makeRoom()
	for i, f := range r.o.Files {
		if f != nil {
			dup := sys.Dup(int(f.Fd()), i)
			r.add(-1, 0, &dup)
		}
	}
	for i := range r.plan.Steps {
		if err := r.addStep(i); err != nil {
			return err
		}
	}
	o := sys.ChildOptions{Flags: r.plan.Flags, Sock: &r.sock, Above: r.plan.Above,
		OwnMemory: r.plan.OwnMemory}
	if r.plan.Cgroup != "" {
		fd, err := sys.OpenFile(r.plan.Cgroup, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		r.fds = append(r.fds, fd)
		o.Flags, o.CgroupFD = o.Flags|unix.CLONE_INTO_CGROUP, fd
	}
	r.forked = sys.Monotonic()
	child, err := r.calls.Start(o)
	if err != nil && r.plan.Cgroup != "" {
		if cgroup.MakeThreaded(r.plan.Cgroup, err) {
			child, err = r.calls.Start(o)
		}
		if err != nil {
			err = cgroup.Refused(r.plan.Cgroup, err)
		}
	}
	if err != nil {
		return err
	}
	r.child = child
	return nil
}

// makeBoxes makes what the child receives its descriptors with, and what it
// sends its terminal with.
func (r *run) makeBoxes() {
	r.outbox = sys.NewOutbox()
	r.received = make(map[plan.Slot]*int32, len(r.plan.Inbox))
	boxes := slices.Collect(slices.Chunk(r.plan.Inbox, plan.InboxSize))
	if len(boxes) == 0 {
		boxes = [][]plan.Slot{nil} // a message without any
	}
	for _, slots := range boxes {
		box := sys.NewInbox(len(slots))
		for i, s := range slots {
			r.received[s] = box.FD(i)
		}
		r.inboxes = append(r.inboxes, box)
	}
}

// noCall is the number of no system call.
const noCall = 1 << 20

// makeRoom makes the list of calls as long as it is going to be.
func (r *run) makeRoom() {
	n := len(r.o.Files) + len(r.plan.Steps)
	for i := range r.plan.Steps {
		n += len(r.plan.Steps[i].Calls)
	}
	r.calls, r.origin, r.index = sys.NewCallList(n), make([]int32, 0, n), make([]int32, 0, n)
}

// addStep adds the calls of a step.
func (r *run) addStep(step int) error {
	calls := r.plan.Steps[step].Calls
	for i := range calls {
		var c sys.ChildCall
		r.compile(&calls[i], &c)
		if r.made++; r.made == r.o.FailCall {
			c.Nr = noCall
		}
		if r.made == r.o.DieCall {
			if err := r.addKill(); err != nil {
				return err
			}
		}
		r.add(step, i, &c)
	}
	if r.clock != nil && len(calls) > 0 {
		stamp := r.clock.stamp(step)
		r.add(-1, 0, &stamp)
	}
	return nil
}

func (r *run) add(step, index int, c *sys.ChildCall) {
	r.calls.Add(c)
	r.origin, r.index = append(r.origin, int32(step)), append(r.index, int32(index))
}

// addKill is the child's call that kills this process. Whoever passes over
// calls passes over this one too.
func (r *run) addKill() error {
	fd, err := sys.PidfdOpen(os.Getpid())
	if err != nil {
		return err
	}
	r.fds = append(r.fds, fd)
	r.calls.AddBetween(&sys.ChildCall{Nr: unix.SYS_PIDFD_SEND_SIGNAL, Args: [6]sys.ChildArg{sys.Number(fd), sys.Number(int(unix.SIGKILL))}, OnErr: sys.Ignore})
	r.origin, r.index = append(r.origin, -1), append(r.index, 0)
	return nil
}

// die does not return.
func die() {
	for {
		_ = sys.Kill(os.Getpid(), int(unix.SIGKILL))
	}
}

// at is where a slot's value lies.
func (r *run) at(s plan.Slot) *int32 {
	switch {
	case s == plan.Sock:
		return &r.sock
	case s == plan.Start:
		return &r.given[0]
	case s == plan.Report:
		return &r.given[1]
	case s == plan.Container:
		return &r.given[2]
	case s == 0:
		return nil
	case r.received[s] != nil:
		return r.received[s]
	case s == r.plan.Console:
		return r.outbox.FD()
	}
	return &r.slots[s]
}

// compile fills out, which is empty: it is large, and there are hundreds.
func (r *run) compile(c *plan.Call, out *sys.ChildCall) {
	switch c.Special {
	case plan.ReceiveInbox:
		r.waits++
		*out = r.inboxes[r.waits-1].Receive(&r.sock)
		return
	case plan.SendConsole:
		*out = r.outbox.Send(&r.sock)
		return
	}
	out.Nr, out.OnErr, out.Errno, out.Skip, out.SkipOnOK, out.Want = c.Nr, sys.OnErr(c.OnErr), syscall.Errno(c.Errno), int32(c.Skip), c.SkipOnOK, int32(c.Want)
	if c.Out != 0 {
		out.Out = r.at(c.Out)
	}
	for i := range c.Args {
		out.Args[i] = r.argument(&c.Args[i])
	}
}

func (r *run) argument(a *plan.Arg) sys.ChildArg {
	switch a.Kind {
	case plan.Str:
		return r.calls.Bytes(a.Text)
	case plan.Vec:
		return sys.StringsOf(*a.List)
	case plan.Filter:
		return sys.FilterOf(a.Bytes)
	case plan.FromSlot:
		return sys.ChildArg{Slot: r.at(a.Slot)}
	case plan.FromBuf:
		return sys.WordOf(a.Bytes, int(a.Value))
	case plan.Buf:
		return sys.ChildArg{Bytes: a.Bytes, Patch: r.at(a.Slot), PatchAt: int(a.Value)}
	}
	return sys.Number(a.Value)
}

// hear waits until the child has become its program.
func (r *run) hear() error {
	for {
		data, fds, err := r.child.Receive()
		if failed := r.follow(); failed != nil {
			return failed
		}
		switch {
		case err != nil:
			return r.explain(err)
		case len(data) == plan.ErrnoMessage:
			return r.explainExec(syscall.Errno(binary.LittleEndian.Uint32(data)))
		case len(fds) > 0:
			r.console = os.NewFile(uintptr(fds[0]), "console")
			continue
		case string(data) == plan.Ready:
			if err := r.parent(); err != nil {
				return err
			}
			continue
		case len(data) == len(plan.Listener)+4 && string(data[:len(plan.Listener)]) == plan.Listener:
			if err := r.fetch(int(binary.NativeEndian.Uint32(data[len(plan.Listener):]))); err != nil {
				return err
			}
			continue
		case len(data) > 0:
			continue
		case r.plan.Fork2 && !r.second:
			return &ForkError{}
		}
		r.child.CloseSocket()
		r.traceChild()
		return nil
	}
}

// fetch takes a copy of the listener that the child has told of, and goes on.
func (r *run) fetch(number int) error {
	fd, err := sys.PidfdGetFD(r.child.PidFD, number)
	if err != nil {
		return err
	}
	r.listener, r.fds = fd, append(r.fds, fd)
	return r.parent()
}

func (r *run) handOut() error {
	if r.o.Listener == nil {
		return &fault.Error{Op: "give away the listener of system calls", Kind: fault.Unsupported}
	}
	return r.o.Listener(r.child.PID, r.listener)
}

// follow makes the second child the child, as soon as it is heard of.
func (r *run) follow() error {
	if !r.plan.Fork2 || r.second || r.child.Sender == 0 || r.child.Sender == r.child.PID {
		return nil
	}
	r.second = true
	if err := r.child.Become(r.child.Sender); err != nil {
		return err
	}
	if err := r.born(); err != nil {
		return err
	}
	return r.child.Send([]byte{1}, nil)
}

func (r *run) born() error {
	if r.o.Born == nil {
		return nil
	}
	return r.o.Born(r.child.PID)
}

// findSecond listens until the second child is heard of, or nobody is left:
// the first must not be killed before.
func (r *run) findSecond() {
	r.o.Born = nil
	for r.plan.Fork2 && !r.second {
		data, fds, err := r.child.Receive()
		for _, fd := range fds {
			sys.Close(fd)
		}
		if failed := r.follow(); failed != nil {
			return
		}
		if err == nil && len(data) == 0 || err != nil && !errors.As(err, new(*sys.ChildError)) {
			return
		}
	}
}

// explainExec is for what only the trampoline has seen: the program is there,
// but cannot be executed.
func (r *run) explainExec(said syscall.Errno) error {
	errno, label := plan.Unlabelled(said)
	// It is said from inside of the container, so there may be no such step.
	if at := slices.IndexFunc(r.plan.Steps, func(s plan.Step) bool { return s.Field == plan.ProfileField }); label && at >= 0 {
		return &StepError{Step: r.plan.Steps[at], Err: unlabelled(errno)}
	}
	step := r.plan.Steps[len(r.plan.Steps)-1]
	return &StepError{Step: step, Call: &step.Calls[len(step.Calls)-1], Err: errno}
}

// unlabelled is the error of a stub that could not ask for the label.
func unlabelled(errno syscall.Errno) error {
	return &fs.PathError{Op: "write", Path: "/proc/thread-self/attr/apparmor/exec", Err: errno}
}

func (r *run) traceChild() {
	if r.clock != nil {
		r.clock.report(r.plan, r.forked, r.o.Trace)
	}
}

// explain names the step of a call that failed.
func (r *run) explain(err error) error {
	var ce *sys.ChildError
	if errors.As(err, &ce) && ce.Index == plan.Refused {
		return &ForkError{ce.Errno}
	}
	if !errors.As(err, &ce) || ce.Index >= len(r.origin) || r.origin[ce.Index] < 0 {
		return err
	}
	step := r.plan.Steps[r.origin[ce.Index]]
	call := step.Calls[r.index[ce.Index]]
	return &StepError{Step: step, Call: &call, Err: callError(call, ce.Errno)}
}

// callError says on which path a call failed.
func callError(c plan.Call, errno syscall.Errno) error {
	for _, a := range c.Args {
		if a.Kind == plan.Str && a.Text != "" {
			return &fs.PathError{Op: c.Name, Path: a.Text, Err: errno}
		}
	}
	if c.Name == "" {
		return errno
	}
	return os.NewSyscallError(c.Name, errno)
}

func (r *run) closeAll() {
	r.networks.close()
	r.closeFiles()
}

func (r *run) closeFiles() {
	for _, fd := range r.fds {
		sys.Close(fd)
	}
	r.fds = nil
}

// abandon ends the child and takes back what the steps made.
func (r *run) abandon() {
	_ = r.leave()
	r.closeFiles()
	if r.console != nil {
		r.console.Close()
	}
	if r.child != nil {
		r.child.HangUp()
		r.findSecond()
		r.child.Kill(syscall.SIGKILL)
		r.child.Wait()
		r.child.Close()
	}
	undoAll(r.networks.undo)
	r.networks.close()
	undoAll(r.undo)
}

func undoAll(undo []func()) {
	for i := len(undo) - 1; i >= 0; i-- {
		undo[i]()
	}
}

// Wait waits for the end of the process and gives its wait status.
func (p *Process) Wait() (syscall.WaitStatus, error) { return p.child.Wait() }

// Signal sends a signal, to this process or to nobody. It may be called while
// another goroutine waits.
func (p *Process) Signal(s syscall.Signal) error { return p.child.Kill(s) }

// PidFD can be read, says poll(2), when the process has ended. It is good
// until Remove.
func (p *Process) PidFD() int { return p.child.PidFD }

// Release gives back this process's descriptors of it, but for Console. It
// goes on.
func (p *Process) Release() { p.child.Close() }

// Remove gives back what the process held, its cgroup too. It has ended.
func (p *Process) Remove() {
	p.child.Close()
	if p.Console != nil {
		p.Console.Close()
	}
	undoAll(p.undo)
}

// device makes a node on a file system of its own, since a user namespace may
// make none, and gives a mount of it.
func device(m chroot.Mount, p *plan.Plan) (int, error) {
	tmp, err := chroot.Mount{Type: "tmpfs", Source: "device", Options: []string{"mode=755", "nr_inodes=4"}}.Detached(nil)
	if err != nil {
		return -1, err
	}
	defer sys.Close(tmp)
	if err := makeNode(tmp, m, p); err != nil {
		return -1, err
	}
	fd, err := sys.OpenTree(tmp, "device", unix.OPEN_TREE_CLONE)
	if !errors.Is(err, syscall.EINVAL) {
		return fd, err
	}
	// A kernel that clones only what is mounted.
	return chroot.Privately(func() (int, error) {
		const at = "/proc"
		if err := sys.MoveMount(tmp, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return -1, err
		}
		return sys.OpenTree(unix.AT_FDCWD, at+"/device", unix.OPEN_TREE_CLONE)
	})
}

func makeNode(dir int, m chroot.Mount, p *plan.Plan) error {
	var kind string
	var major, minor, mode, uid, gid uint32
	fmt.Sscanf(m.Source, "%s %d:%d", &kind, &major, &minor)
	for _, o := range m.Options {
		fmt.Sscanf(o, "mode=%o", &mode)
		fmt.Sscanf(o, "uid=%d", &uid)
		fmt.Sscanf(o, "gid=%d", &gid)
	}
	types := map[string]uint32{"c": unix.S_IFCHR, "u": unix.S_IFCHR, "b": unix.S_IFBLK, "p": unix.S_IFIFO}
	if err := sys.MknodAt(dir, "device", types[kind]|mode, sys.MakeDevice(major, minor)); err != nil {
		return err
	}
	if err := sys.ChmodAt(dir, "device", mode); err != nil {
		return err
	}
	return sys.ChownAt(dir, "device", int(plan.Outside(p.UIDs, uid)), int(plan.Outside(p.GIDs, gid)))
}

// Adopt makes a child of this process, which somebody else has made for it, a
// Process. The console may be nil.
func Adopt(pid int, console *os.File) (*Process, error) {
	c, err := sys.AdoptChild(pid)
	if err != nil {
		return nil, err
	}
	return &Process{PID: pid, Console: console, child: c}, nil
}
