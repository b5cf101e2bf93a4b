package privilege

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Report is what /proc tells of a process's privileges; proc(5). Landlock
// is not visible there. Fields are nil or empty where the kernel did not let
// us look; Hidden names them.
type Report struct {
	PID     int       `json:"pid"`
	Name    string    `json:"name"`
	UID     [4]uint32 `json:"uid"` // real, effective, saved, file system; as our user namespace sees them
	GID     [4]uint32 `json:"gid"`
	Groups  []uint32  `json:"groups"`
	Caps    CapSets   `json:"capabilities"`
	UIDMap  []IDRange `json:"uidMap"`
	GIDMap  []IDRange `json:"gidMap"`
	Shared  []string  `json:"sharedNamespaces"` // with us
	Own     []string  `json:"ownNamespaces"`    // others than ours
	Limits  []Rlimit  `json:"limits"`
	Seccomp Seccomp   `json:"seccomp"`
	Label   string    `json:"label,omitempty"`      // of AppArmor, SELinux or Smack
	Secure  *int      `json:"securebits,omitempty"` // visible for ourselves only
	OOM     int       `json:"oomScoreAdj"`
	Hidden  []string  `json:"hidden,omitempty"`

	NoNewPrivs bool  `json:"noNewPrivileges"`
	Dumpable   *bool `json:"dumpable,omitempty"` // guessed from the owner of /proc/PID
}

// CapSets are the five sets of capabilities(7).
type CapSets struct {
	Effective   Caps `json:"effective"`
	Permitted   Caps `json:"permitted"`
	Inheritable Caps `json:"inheritable"`
	Bounding    Caps `json:"bounding"`
	Ambient     Caps `json:"ambient"`
}

// An IDRange is a line of /proc/PID/uid_map: Count ids from Inside on are
// those from Outside on.
type IDRange struct {
	Inside  uint32 `json:"inside"`
	Outside uint32 `json:"outside"`
	Count   uint32 `json:"count"`
}

// Seccomp is the mode, "off", "strict" or "filter", and the number of filters.
type Seccomp struct {
	Mode    string `json:"mode"`
	Filters int    `json:"filters"`
}

// MarshalJSON is the list of c's names, as OCI writes it.
func (c Caps) MarshalJSON() ([]byte, error) { return json.Marshal(c.Names()) }

// Show reads all that /proc tells of a process's privileges. Errors are
// fault.NotFound for a process that is not there, or ended meanwhile.
func Show(pid int) (Report, error) {
	failed := func(err error) (Report, error) {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) {
			return Report{}, &fault.Error{Op: "show process", On: strconv.Itoa(pid), Kind: fault.NotFound, Err: errors.New("there is no such process")}
		}
		return Report{}, &fault.Error{Op: "show process", On: strconv.Itoa(pid), Err: err}
	}
	// An open directory stays that of this process when the number is used again.
	proc, err := os.OpenRoot("/proc/" + strconv.Itoa(pid))
	if err != nil {
		return failed(err)
	}
	defer proc.Close()
	r := Report{PID: pid}
	status, err := proc.ReadFile("status")
	if err != nil {
		return failed(err)
	}
	if err := r.readStatus(string(status)); err != nil {
		return failed(err)
	}
	r.readMaps(proc)
	r.readNamespaces(proc)
	r.readRest(proc)
	if pid == os.Getpid() {
		if bits, err := sys.Prctl(unix.PR_GET_SECUREBITS, 0, 0, 0, 0); err == nil {
			r.Secure = &bits
		}
	}
	return r, nil
}

// readStatus reads /proc/PID/status.
func (r *Report) readStatus(text string) error {
	var err error
	hex := func(s string) Caps {
		n, bad := strconv.ParseUint(s, 16, 64)
		err = errors.Join(err, bad)
		return Caps(n)
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch key {
		case "Name":
			r.Name = value
		case "Uid":
			copy(r.UID[:], ids(value))
		case "Gid":
			copy(r.GID[:], ids(value))
		case "Groups":
			r.Groups = ids(value)
		case "CapInh":
			r.Caps.Inheritable = hex(value)
		case "CapPrm":
			r.Caps.Permitted = hex(value)
		case "CapEff":
			r.Caps.Effective = hex(value)
		case "CapBnd":
			r.Caps.Bounding = hex(value)
		case "CapAmb":
			r.Caps.Ambient = hex(value)
		case "NoNewPrivs":
			r.NoNewPrivs = value == "1"
		case "Seccomp":
			r.Seccomp.Mode = seccompMode(value)
		case "Seccomp_filters":
			r.Seccomp.Filters, _ = strconv.Atoi(value)
		}
	}
	return err
}

func seccompMode(s string) string {
	switch s {
	case "1":
		return "strict"
	case "2":
		return "filter"
	}
	return "off"
}

func ids(s string) []uint32 {
	out := []uint32{}
	for word := range strings.FieldsSeq(s) {
		if n, err := strconv.ParseUint(word, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out
}

func (r *Report) readMaps(proc *os.Root) {
	for name, to := range map[string]*[]IDRange{"uid_map": &r.UIDMap, "gid_map": &r.GIDMap} {
		text, err := proc.ReadFile(name)
		if err != nil {
			r.Hidden = append(r.Hidden, name)
		}
		for line := range strings.Lines(string(text)) {
			if n := ids(line); len(n) == 3 {
				*to = append(*to, IDRange{n[0], n[1], n[2]})
			}
		}
	}
}

func (r *Report) readNamespaces(proc *os.Root) {
	for _, kind := range []string{"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"} {
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			continue // a kernel without it
		}
		theirs, err := proc.Readlink("ns/" + kind)
		switch {
		case err != nil:
			r.Hidden = append(r.Hidden, "ns/"+kind)
		case ours == theirs:
			r.Shared = append(r.Shared, kind)
		default:
			r.Own = append(r.Own, kind)
		}
	}
}

func (r *Report) readRest(proc *os.Root) {
	if text, err := proc.ReadFile("attr/current"); err == nil {
		r.Label = strings.Trim(string(text), "\x00\n ")
	}
	if text, err := proc.ReadFile("oom_score_adj"); err == nil {
		r.OOM, _ = strconv.Atoi(strings.TrimSpace(string(text)))
	}
	if text, err := proc.ReadFile("limits"); err == nil {
		r.Limits = readLimits(string(text))
	} else {
		r.Hidden = append(r.Hidden, "limits")
	}
	// The kernel gives /proc/PID to root when the process is not dumpable.
	if info, err := proc.Stat("stat"); err == nil && r.UID[1] != 0 {
		if owner, ok := sys.Owner(info); ok {
			dumpable := owner == r.UID[1]
			r.Dumpable = &dumpable
		}
	}
}

// readLimits reads /proc/PID/limits: one line for each resource, in the order
// of their numbers, after a heading.
func readLimits(text string) []Rlimit {
	var out []Rlimit
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Scan()
	for n := 0; lines.Scan() && n < 16; n++ {
		if len(lines.Text()) < 26 {
			break
		}
		words := strings.Fields(lines.Text()[26:])
		if len(words) < 2 {
			break
		}
		soft, err1 := limit(words[0])
		hard, err2 := limit(words[1])
		if err1 == nil && err2 == nil {
			out = append(out, Rlimit{n, RlimitName(n), soft, hard})
		}
	}
	return out
}

// A Section is a part of what Words says.
type Section struct {
	Title string
	Lines []string
}

// Words says in plain words what the process may do and not do.
func (r Report) Words() []Section {
	return []Section{
		{"who it is", r.identity()},
		{"what it may do", r.powers()},
		{"what it may not do", r.walls()},
		{"what it sees", r.view()},
		{"what it may use", r.use()},
	}
}

// insideUID is the effective uid as the process's own user namespace has it.
func (r Report) insideUID() (uint32, bool) {
	for _, m := range r.UIDMap {
		if r.UID[1] >= m.Outside && r.UID[1]-m.Outside < m.Count {
			return r.UID[1] - m.Outside + m.Inside, true
		}
	}
	return 0, false
}

// apart reports whether the process has a user namespace that is not ours.
func (r Report) apart() bool { return slices.Contains(r.Own, "user") }

func (r Report) identity() []string {
	lines := []string{fmt.Sprintf("runs as uid %d, gid %d", r.UID[1], r.GID[1])}
	if r.UID[0] != r.UID[1] || r.UID[2] != r.UID[1] {
		lines = append(lines, fmt.Sprintf("may change to uid %d (real) and %d (saved)", r.UID[0], r.UID[2]))
	}
	if len(r.Groups) > 0 {
		lines = append(lines, "is also in the groups "+strings.Trim(fmt.Sprint(r.Groups), "[]"))
	}
	inside, ok := r.insideUID()
	switch {
	case !r.apart():
	case ok && inside == 0:
		lines = append(lines, fmt.Sprintf("is root only inside its user namespace: uid 0 is %d outside", r.UID[1]))
	case ok:
		lines = append(lines, fmt.Sprintf("is uid %d inside its user namespace: that is %d outside", inside, r.UID[1]))
	default:
		lines = append(lines, "is nobody in its own user namespace: its id is not mapped there")
	}
	return lines
}

func (r Report) powers() []string {
	var lines []string
	if r.Caps.Effective == 0 {
		lines = append(lines, "holds no capability: permission bits decide what it may do")
	}
	if r.Caps.Effective != 0 && r.apart() {
		lines = append(lines, "its capabilities count only for what belongs to its user namespace")
	}
	if r.Caps.Effective.Has(AllCaps()) {
		lines = append(lines, "holds every capability")
	}
	for n := range 64 {
		if c := Caps(1) << n; r.Caps.Effective.Has(c) {
			lines = append(lines, capLine(n))
		}
	}
	if idle := r.Caps.Permitted &^ r.Caps.Effective; idle != 0 {
		lines = append(lines, "may take up at any time: "+idle.String())
	}
	if r.Caps.Ambient != 0 {
		lines = append(lines, "hands on to programs it executes, root or not: "+r.Caps.Ambient.String())
	}
	if extra := r.Caps.Inheritable &^ r.Caps.Ambient; extra != 0 {
		lines = append(lines, "hands on to programs whose files say so (inheritable): "+extra.String())
	}
	if !r.NoNewPrivs {
		lines = append(lines, "may gain privileges by setuid programs and file capabilities")
	}
	return lines
}

func capLine(n int) string {
	if n < len(caps) {
		return fmt.Sprintf("%s (%s)", caps[n].text, caps[n].name)
	}
	return capName(n) + ", which is newer than this program"
}

func (r Report) walls() []string {
	var lines []string
	if r.NoNewPrivs {
		lines = append(lines, "cannot gain privileges by setuid programs (no_new_privs)")
	}
	switch missing := AllCaps() &^ r.Caps.Bounding; {
	case missing == AllCaps():
		lines = append(lines, "can never gain a capability (its bounding set is empty)")
	case missing != 0:
		lines = append(lines, "can never gain, not as root either: "+missing.String())
	}
	switch r.Seccomp.Mode {
	case "strict":
		lines = append(lines, "may only read, write and exit (seccomp strict)")
	case "filter":
		lines = append(lines, fmt.Sprintf("its system calls are filtered (seccomp, %d filter%s)", r.Seccomp.Filters, plural(r.Seccomp.Filters)))
	default:
		lines = append(lines, "its system calls are not filtered")
	}
	if r.Label != "" && r.Label != "unconfined" {
		lines = append(lines, "is confined by the label "+strconv.Quote(r.Label))
	}
	if r.Secure != nil && *r.Secure != 0 {
		lines = append(lines, "root is restricted by securebits: "+SecurebitsText(*r.Secure))
	}
	if r.Dumpable != nil && !*r.Dumpable {
		lines = append(lines, "cannot be traced by its own user (not dumpable)")
	}
	return lines
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

func (r Report) view() []string {
	var lines []string
	if len(r.Own) > 0 {
		lines = append(lines, "has its own namespaces: "+strings.Join(r.Own, " "))
	}
	if len(r.Shared) > 0 {
		lines = append(lines, "shares with us the namespaces: "+strings.Join(r.Shared, " "))
	}
	if len(r.Hidden) > 0 {
		lines = append(lines, "we may not see: "+strings.Join(r.Hidden, " "))
	}
	return append(lines, "Landlock restrictions are not visible from outside")
}

func (r Report) use() []string {
	var lines []string
	for _, l := range r.Limits {
		if l.Soft != Infinity || l.Hard != Infinity {
			lines = append(lines, "limit "+l.String())
		}
	}
	switch {
	case r.OOM == -1000:
		lines = append(lines, "is never killed when memory runs out (oom_score_adj -1000)")
	case r.OOM < 0:
		lines = append(lines, fmt.Sprintf("is killed later than others when memory runs out (oom_score_adj %d)", r.OOM))
	case r.OOM > 0:
		lines = append(lines, fmt.Sprintf("is killed earlier than others when memory runs out (oom_score_adj %d)", r.OOM))
	}
	return lines
}
