// Package plan compiles an OCI spec into all that is asked of the kernel, as
// data.
//
//	takes    a spec, the mounts of its root, Facts about the host
//	gives    a Plan: ordered steps, each with its side, its text, the spec field it comes from
//	touches  nothing
//	state    none
//
// A step of the parent's side is an Act, which package process knows how to do
// and to undo. A step of the child's side compiles further into calls: system
// calls with their arguments, which the forked child makes as they stand, with
// no Go in between. So a plan can be printed before anything happens, diffed
// as a golden, timed, and made to fail at every step in turn.
//
// The order: the parent makes the cgroup; forks the child into its namespaces;
// while the child waits, maps its ids, and makes the mounts that need the
// powers of the host (the root from id-mapped layers, id-mapped binds), which
// it sends as descriptors. The child makes the kernel's file systems, detached,
// and takes the other binds; attaches the root, pivots into it, drops the old one; attaches everything
// else by descriptor, resolved inside the new root; gives up what it may not
// keep; and becomes the program.
package plan

import (
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/internal/stub"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/resctrl"
	"kiste/kernel/chroot"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
	"kiste/kernel/privilege"
)

// A Side is who carries a step out.
type Side string

// The sides.
const (
	Parent Side = "parent"
	Child  Side = "child"
)

// A Step is one line of a plan.
type Step struct {
	Side  Side
	Text  string
	Field string // of the spec: "process.cwd"; may be empty
	Act   *Act   // of a parent's step
	Calls []Call // of a child's step
	phase int    // steps of a phase are the parent's, then the child's
}

// An ActKind is what a parent's step does.
type ActKind string

// The acts.
const (
	ActCgroup   ActKind = "cgroup"
	ActClass    ActKind = "class"
	ActScope    ActKind = "scope" // what Options.Scope of package process does
	ActEnter    ActKind = "enter"
	ActFork     ActKind = "fork"
	ActMapIDs   ActKind = "map ids"
	ActRlimit   ActKind = "rlimit"
	ActOOM      ActKind = "oom"
	ActRoot     ActKind = "root"
	ActBind     ActKind = "bind"
	ActCopyUp   ActKind = "copy up"
	ActOpen     ActKind = "open"
	ActHooks    ActKind = "hooks"
	ActDevice   ActKind = "network device"
	ActBridge   ActKind = "bridge"
	ActRules    ActKind = "rules"
	ActEndpoint ActKind = "endpoint"
	ActNames    ActKind = "names" // what Options.Names of package process does
	ActProxy    ActKind = "proxy" // and Options.Proxy
	ActServe    ActKind = "serve the network"
	ActListener ActKind = "listener"
	ActRelease  ActKind = "release"
)

// An Act is a parent's step as data. What few acts have, and is large, is not in
// it: there are some twenty in each start.
type Act struct {
	Kind     ActKind
	Cgroup   *cgroup.Step
	Class    *resctrl.Step
	Mount    chroot.Mount // of ActRoot, ActBind, ActCopyUp
	IDMap    bool         // of ActRoot and ActBind: shift by the child's user namespace, or where they are given
	UIDs     []IDMap      // by these maps
	GIDs     []IDMap
	Path     string          // of ActOpen and ActEnter: a namespace; of ActListener: a socket
	Name     string          // of ActDevice: of the link on the host; of ActRules: of the table
	Bridge   *network.Bridge // of ActBridge, ActEndpoint and ActRules: see package network
	Endpoint *network.Endpoint
	Rules    *rules.State
	Host     string // path of the network namespace where Bridge and Rules are, and Endpoint leads; empty: this process's
	Rlimit   privilege.Rlimit
	Value    string // of ActOOM; of ActHooks their kind; of ActDevice the name in the container; of ActEnter the kind as in /proc/PID/ns
	FD       Slot   // where the child finds the descriptor
}

// An IDMap is one line of a user namespace's map.
type IDMap struct{ Inside, Outside, Size uint32 }

// A Plan is everything between a bundle and a process.
type Plan struct {
	Flags     uint64  // of clone3(2), without CLONE_INTO_CGROUP
	UIDs      []IDMap // of the user namespace, new or joined; empty: none
	GIDs      []IDMap
	Cgroup    string // the cgroup to be born in; those of version 1 the child enters itself
	Inbox     []Slot // of the descriptors that the parent sends, in their order
	Slots     []string
	Console   Slot   // the master of the terminal, which the child sends; 0: none
	Userns    string // the path of the user namespace that is joined; empty: none
	Fork2     bool   // the child forks once more, and leaves; the second one says Hello, and waits for a byte
	Visible   string // where on the host the root stays mounted, for want of a mount namespace; empty: nowhere
	OwnMemory bool   // the child shares no memory with its parent: it joins a time namespace, which a process that does may not
	Above     int    // the child's end of the socket has at least this number
	Steps     []Step // in the order in which they happen

	// Warnings are what is passed over, as sentences.
	Warnings []string
}

// A Slot is where a call's result waits for a later call; 0 is none.
type Slot int32

// The slots of descriptors that the child inherits: its end of the socket; the
// FIFOs of a plan that waits, whose stub reads a byte from Start before it
// becomes the program, and writes to Report why it could not; and the pidfd of
// the container that is to be joined.
const (
	Sock      Slot = -1
	Start     Slot = -2
	Report    Slot = -3
	Container Slot = -4
)

// A Call is one system call of the child.
type Call struct {
	Name string
	Nr   uintptr
	Args []Arg
	Out  Slot

	// What a failure means: see sys.ChildCall.
	OnErr    OnErr
	SkipOnOK bool
	Special  Special
	Errno    uintptr // for IgnoreErrno and SkipOnErrno

	// Skip is how many calls to pass over, for SkipOnErr, Note and SkipOnOK.
	Skip int

	// Want is the smallest result that is no failure.
	Want int
}

// OnErr says what a failing call means.
type OnErr uint8

// What a failing call means.
const (
	Fail OnErr = iota
	Ignore
	IgnoreErrno
	SkipOnErr
	Note
	FailNoted
	SkipOnErrno
)

// Refused is the number of no call of a plan: a second child that the stub was to
// make (see Options.ForkEarly) could not be.
const Refused = stub.Refused

// Hello is the message of the second child. Who that is the kernel says
// (SCM_CREDENTIALS in unix(7)).
const Hello = "hello"

// InboxSize is how many descriptors go into one message to the child: unix(7)
// allows 253. A plan has as many ReceiveInbox as it takes, at least one.
const InboxSize = 250

// ErrnoMessage is how many bytes the message has in which the trampoline says
// why the program could not be executed, little-endian: see Unlabelled.
const ErrnoMessage = 4

// Unlabelled gives the errno that a trampoline has said, and whether it is why the
// program could not be given its label.
func Unlabelled(said syscall.Errno) (errno syscall.Errno, label bool) {
	return said &^ stub.Unlabelled, said&stub.Unlabelled != 0
}

// A Special call has arguments that only package process can make.
type Special uint8

// The specials.
const (
	Ordinary Special = iota
	ReceiveInbox
	SendConsole
)

// An Arg is an argument of a call.
type Arg struct {
	Kind  ArgKind
	Form  Form
	Slot  Slot
	Value uint64
	Bytes []byte
	List  *[]string // of a Vec
	Text  string    // of a Str the string; else how it is printed, empty: by its form or kind
}

// A Form says how an Arg is printed. Few plans are: no text is made before.
type Form uint8

// The forms.
const (
	Plain     Form = iota
	Octal          // the number, as modes are
	Attrs          // the number, as MOUNT_ATTR_ bits
	Node           // the number, as the mode of mknod(2)
	Device         // the number, as mknod(2) takes a device
	Quoted         // the bytes, as a string
	Attr           // the bytes, as struct mount_attr of mount_setattr(2)
	How            // the bytes, as struct open_how of openat2(2)
	Caps           // the bytes, as the data of capset(2)
	Groups         // the bytes, as the list of setgroups(2), with a zero at its end
	Variables      // the strings: how many
)

// An ArgKind says which field of an Arg counts.
type ArgKind uint8

// The kinds of arguments.
const (
	Num ArgKind = iota
	Str
	Buf
	Vec
	FromSlot
	Filter  // Bytes is a program of struct sock_filter
	FromBuf // the 32 bits at Value in Bytes, which an earlier call has as Buf
)

// String prints the steps, a line each: side, text, field.
func (p *Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(pad(string(s.Side), 7))
		if s.Field == "" {
			b.WriteString(s.Text)
		} else {
			b.WriteString(pad(s.Text, 70) + " # " + s.Field)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Calls prints the child's system calls under the steps that they carry out.
func (p *Plan) Calls() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString("# " + string(s.Side) + ": " + s.Text + "\n")
		for _, c := range s.Calls {
			b.WriteString(p.callText(c) + "\n")
		}
	}
	return b.String()
}

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-len(s))) }

func (p *Plan) callText(c Call) string {
	if c.OnErr == FailNoted {
		return "fail with the error noted above"
	}
	args := make([]string, len(c.Args))
	for i, a := range c.Args {
		args[i] = p.argText(a)
	}
	line := c.Name + "(" + strings.Join(args, ", ") + ")"
	if c.Out > 0 {
		line += " = " + p.slotName(c.Out)
	}
	switch c.OnErr {
	case Ignore:
		line += "  (may fail)"
	case IgnoreErrno:
		line += "  (may fail with " + unix.ErrnoName(syscall.Errno(c.Errno)) + ")"
	case Note:
		line += "  (else the next" + alsoSkip(c.Skip) + ")"
	case SkipOnErrno:
		if c.Want > 0 {
			line += "  (of less than " + strconv.Itoa(c.Want) + ": skip " + strconv.Itoa(c.Skip) + ")"
		} else {
			line += "  (with " + unix.ErrnoName(syscall.Errno(c.Errno)) + " skip " + strconv.Itoa(c.Skip) + ")"
		}
	case SkipOnErr:
		line += "  (else skip " + strconv.Itoa(c.Skip) + ")"
	}
	if c.SkipOnOK {
		line += "  (then skip " + strconv.Itoa(c.Skip) + ")"
	}
	return line
}

func alsoSkip(n int) string {
	if n == 0 {
		return ""
	}
	return " but " + strconv.Itoa(n)
}

func (p *Plan) slotName(s Slot) string {
	switch s {
	case Sock:
		return "<parent>"
	case Start:
		return "<start>"
	case Report:
		return "<report>"
	case Container:
		return "<container>"
	}
	name := p.Slots[s]
	if len(name) > 100 {
		name = name[:97] + "…"
	}
	return "<" + name + ">"
}

func (p *Plan) argText(a Arg) string {
	switch {
	case a.Kind == Str:
		return strconv.Quote(a.Text)
	case a.Text != "":
		return a.Text
	case a.Form != Plain:
		return formText(a)
	case a.Kind == FromSlot:
		return p.slotName(a.Slot)
	case a.Kind == Vec:
		quoted := make([]string, len(*a.List))
		for i, s := range *a.List {
			quoted[i] = strconv.Quote(s)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	case a.Kind == Buf:
		return "{" + strconv.Itoa(len(a.Bytes)) + " bytes}"
	case a.Kind == Filter:
		return "{" + strconv.Itoa(len(a.Bytes)/8) + " instructions}"
	case int64(a.Value) < 0 && int64(a.Value) > -4096:
		return strconv.FormatInt(int64(a.Value), 10)
	case a.Value > 255:
		return "0x" + strconv.FormatUint(a.Value, 16)
	}
	return strconv.FormatUint(a.Value, 10)
}
