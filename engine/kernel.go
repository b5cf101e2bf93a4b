package engine

import (
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"kiste/engine/inspect"
	"kiste/host"
	"kiste/kernel/privilege"
)

// Of what the kernel tells about containers: calls that a filter or Landlock refused
// are told of with the id of the process's user on the host, which belongs to one
// container only; processes that are killed for want of memory with their cgroup.

// A suspect is the container of whom the kernel's log may tell.
type suspect struct {
	id    string
	pid   int
	users [][2]uint64 // of the host: from, up to but without
	since time.Time
}

func (c *Container) suspect() suspect {
	s := suspect{id: c.ID, pid: c.State.PID, since: c.State.StartedAt}
	for _, m := range c.Result.Spec.Linux.UIDMappings {
		s.users = append(s.users, [2]uint64{uint64(m.HostID), uint64(m.HostID) + uint64(m.Size)})
	}
	return s
}

// A testimony is what the kernel's log has of one container.
type testimony struct {
	denied []inspect.Denial
	oom    string // the name of the process that was killed last for want of memory
	barred audit  // the last record of Landlock's: the one of the call follows
}

// most is how many different calls are remembered.
const mostDenied = 32

// ask reads the kernel's log. Who may not read it hears nothing.
func (s suspect) ask() testimony {
	var t testimony
	_ = host.KernelLog(func(text string) { t.hear(s, text) })
	return t
}

func (t *testimony) hear(s suspect, text string) {
	if name, ok := oomVictim(text, s.id); ok {
		t.oom = name
	}
	a, ok := parseAudit(text)
	if !ok {
		return
	}
	if a.kind == auditLandlock {
		t.barred = a
		return
	}
	r, ok := a.refusal()
	if !ok || a.at.Before(s.since.Truncate(time.Second)) || !s.owns(r) {
		return
	}
	d := inspect.Denial{Call: r.call, Program: r.program, Killed: r.killed}
	if a.kind == auditCall { // it tells who made the call that the record before is about
		if t.barred.stamp != a.stamp {
			return
		}
		d.Blockers = t.barred.fields["blockers"]
	}
	t.add(d)
}

func (t *testimony) add(d inspect.Denial) {
	same := func(o inspect.Denial) bool {
		o.Times = 0
		return o == d
	}
	switch i := slices.IndexFunc(t.denied, same); {
	case i >= 0:
		t.denied[i].Times++
	case len(t.denied) < mostDenied:
		d.Times = 1
		t.denied = append(t.denied, d)
	}
}

func (s suspect) owns(r refusal) bool {
	return r.pid == s.pid && s.pid > 0 || slices.ContainsFunc(s.users, func(u [2]uint64) bool { return r.uid >= u[0] && r.uid < u[1] })
}

// oomVictim finds the name of a process of the container that was killed.
func oomVictim(text, id string) (string, bool) {
	rest, ok := strings.CutPrefix(text, "oom-kill:")
	if !ok || !strings.Contains(rest, "/"+id) {
		return "", false
	}
	_, rest, _ = strings.Cut(rest, ",task=")
	name, _, ok := strings.Cut(rest, ",pid=")
	return name, ok
}

// Types of audit records: linux/audit.h.
const (
	auditCall     = "1300" // a system call, whose other records have the same stamp
	auditSeccomp  = "1326"
	auditLandlock = "1423"
)

// An audit is one record. Source: audit_log_start in kernel/audit.c.
type audit struct {
	kind   string
	stamp  string
	at     time.Time
	fields map[string]string
}

// parseAudit reads a record as the kernel's log has it.
func parseAudit(text string) (a audit, ok bool) {
	rest, ok := strings.CutPrefix(text, "audit: type=")
	a.kind, rest, _ = strings.Cut(rest, " audit(")
	a.stamp, rest, _ = strings.Cut(rest, "):")
	if !ok || !slices.Contains([]string{auditCall, auditSeccomp, auditLandlock}, a.kind) {
		return a, false
	}
	seconds, err := strconv.ParseFloat(strings.SplitN(a.stamp, ":", 2)[0], 64)
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return a, false
	}
	a.at, a.fields = time.UnixMilli(int64(seconds*1000)), auditFields(rest)
	return a, true
}

// A refusal is a system call that a filter or Landlock has not let pass.
type refusal struct {
	pid     int
	uid     uint64
	call    string
	program string
	killed  bool
}

// refusal reads what records of system calls and of filters have. Source:
// audit_seccomp and audit_log_exit in kernel/auditsc.c.
func (a audit) refusal() (r refusal, ok bool) {
	f := a.fields
	var err error
	if r.pid, err = strconv.Atoi(f["pid"]); err != nil {
		return r, false
	}
	if r.uid, err = strconv.ParseUint(f["uid"], 10, 32); err != nil {
		return r, false
	}
	r.call, r.program = callName(f["arch"], f["syscall"]), auditText(f["exe"])
	r.killed = f["sig"] == strconv.Itoa(int(syscall.SIGSYS))
	return r, r.call != ""
}

// auditFields are the words KEY=VALUE. A value with spaces is never without
// quotation marks: then it is in hexadecimal.
func auditFields(text string) map[string]string {
	f := map[string]string{}
	for word := range strings.FieldsSeq(text) {
		if key, value, ok := strings.Cut(word, "="); ok {
			f[key] = value
		}
	}
	return f
}

// auditText is a value that was not to be trusted: in quotation marks, or in
// hexadecimal.
func auditText(value string) string {
	if quoted := strings.TrimPrefix(value, `"`); quoted != value {
		return strings.TrimSuffix(quoted, `"`)
	}
	if b, err := hex.DecodeString(value); err == nil && len(b) > 0 {
		return strconv.Quote(string(b))
	}
	return ""
}

// callName is the name of a system call by the numbers of its architecture, from
// linux/audit.h, and of itself.
func callName(arch, number string) string {
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return ""
	}
	name := map[string]string{"c000003e": "amd64", "c00000b7": "arm64", "40000003": "386", "40000028": "arm"}[arch]
	const x32 = 1 << 30
	if name == "amd64" && n >= x32 {
		name = "x32"
	}
	if call, ok := privilege.SyscallName(name, uint32(n)); ok {
		return call
	}
	return "system call " + number
}
