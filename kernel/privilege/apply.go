package privilege

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"kiste/fault"
	"kiste/internal/sys"
)

// Walls are what is put around a process. The zero value changes nothing.
type Walls struct {
	// Caps are what is left, in the permitted, effective and bounding sets;
	// the inheritable set becomes Ambient. Nil: all sets stay.
	Caps *Caps

	// Ambient capabilities are kept over exec by users other than root too.
	// They must be among Caps, or held where Caps is nil.
	Ambient Caps

	// NoNewPrivs: exec gives no privileges, PR_SET_NO_NEW_PRIVS of prctl(2).
	NoNewPrivs bool

	// Securebits of capabilities(7). Nil: they stay.
	Securebits *int

	// User is whom the process becomes. Nil: it stays.
	User *User

	Rlimits []Rlimit // in this order
	Files   *Ruleset // Landlock. Nil: none
	Filter  *Filter  // seccomp, put up last. Nil: none
}

// A User is a process's ids: real, effective and saved ones alike.
type User struct {
	UID, GID int
	Groups   []uint32 // supplementary; nil: they stay, empty: none
}

// Held are the capabilities that the calling thread may give to what it
// executes: permitted and not taken out of the bounding set.
func Held() (Caps, error) {
	_, permitted, _, err := sys.Capget()
	if err != nil {
		return 0, &fault.Error{Op: "read capabilities", Err: err}
	}
	return Caps(permitted) & bounding(), nil
}

// Holder tells of capabilities whether Held has them all. The kernel is asked
// about those alone: it tells of one in each call. Nil: nobody knows. Not for
// concurrent use.
func Holder() func(Caps) bool {
	_, permitted, _, err := sys.Capget()
	if err != nil {
		return nil
	}
	var asked, held Caps
	return func(c Caps) bool {
		held |= Caps(permitted) & boundingOf(c&^asked)
		asked |= c
		return held.Has(c)
	}
}

// bounding is the bounding set of the calling thread.
func bounding() Caps { return boundingOf(AllCaps()) }

// boundingOf is what of c is in it.
func boundingOf(c Caps) Caps {
	var set Caps
	for n := range LastCap() + 1 {
		if c&(1<<n) == 0 {
			continue
		}
		if v, err := sys.Prctl(unix.PR_CAPBSET_READ, uintptr(n), 0, 0, 0); err == nil && v == 1 {
			set |= 1 << n
		}
	}
	return set
}

// Apply puts the walls around the calling thread, which must be locked
// (runtime.LockOSThread): exec from it keeps them, since execve(2) ends all
// other threads. There is no way back, so after an error the process should
// end. Without CAP_SYS_ADMIN Files and Filter need NoNewPrivs; without
// CAP_SETPCAP the bounding set can only stay as it is, which NoNewPrivs makes
// harmless.
//
// A Filter must allow what is still to be done: execve, and without NoNewPrivs
// capset and prctl.
func (w Walls) Apply() error {
	if err := w.limit(); err != nil {
		return err
	}
	ruleset := -1
	if w.Files != nil {
		fd, err := w.Files.Open()
		if err != nil {
			return err
		}
		defer sys.Close(fd)
		ruleset = fd
	}
	if err := w.check(); err != nil {
		return err
	}
	for _, step := range []func() error{w.noNewPrivs, w.dropBounding, w.become, w.raise, w.securebits,
		func() error { return w.restrict(ruleset) }} {
		if err := step(); err != nil {
			return err
		}
	}
	if w.NoNewPrivs { // the filter needs no capability, and sees least when it is last
		return inOrder(w.setCaps, w.filter)
	}
	return inOrder(w.filter, w.setCaps)
}

// inOrder does both, or only the first if that fails.
func inOrder(first, second func() error) error {
	if err := first(); err != nil {
		return err
	}
	return second()
}

func (w Walls) limit() error {
	for _, l := range w.Rlimits {
		if err := sys.Setrlimit(l.Resource, l.Soft, l.Hard); err != nil {
			hint := ""
			if fault.KindOf(err) == fault.Denied {
				hint = "raising a hard limit needs CAP_SYS_RESOURCE, which this process lacks"
			}
			return &fault.Error{Op: "set limit", On: l.String(), Err: err, Hint: hint}
		}
	}
	return nil
}

// check refuses what the kernel would, with better words.
func (w Walls) check() error {
	held, err := Held()
	if err != nil {
		return err
	}
	wanted := w.Ambient
	if w.Caps != nil {
		wanted |= *w.Caps
		if !w.Caps.Has(w.Ambient) {
			return &fault.Error{Op: "set ambient capabilities", On: (w.Ambient &^ *w.Caps).String(), Kind: fault.Invalid,
				Err: fmt.Errorf("they are not among those that the process keeps")}
		}
	}
	if lacking := wanted &^ held; lacking != 0 {
		return &fault.Error{Op: "give capabilities", On: lacking.String(), Kind: fault.Denied,
			Err: fmt.Errorf("this process does not hold them itself"), Hint: `"kiste privilege show" lists what it holds`}
	}
	return nil
}

func (w Walls) noNewPrivs() error {
	if !w.NoNewPrivs {
		return nil
	}
	if _, err := sys.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return &fault.Error{Op: "set no_new_privs", Err: err}
	}
	return nil
}

func (w Walls) dropBounding() error {
	if w.Caps == nil {
		return nil
	}
	for left := uint64(bounding() &^ *w.Caps); left != 0; left &= left - 1 {
		n := bits.TrailingZeros64(left)
		_, err := sys.Prctl(unix.PR_CAPBSET_DROP, uintptr(n), 0, 0, 0)
		switch {
		case err == nil:
		case fault.KindOf(err) == fault.Denied && w.NoNewPrivs:
			return nil
		default:
			return &fault.Error{Op: "drop from the bounding set", On: capName(n), Err: err,
				Hint: "it needs CAP_SETPCAP; with --no-new-privs nothing can be gained either, and it works without"}
		}
	}
	return nil
}

// become changes the ids and keeps the permitted set over it.
func (w Walls) become() error {
	if w.User == nil {
		return nil
	}
	if _, err := sys.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return &fault.Error{Op: "keep capabilities", Err: err}
	}
	if err := sys.SetIDs(w.User.UID, w.User.GID, w.User.Groups); err != nil {
		hint := ""
		if fault.KindOf(err) == fault.Denied {
			hint = "becoming another user needs CAP_SETUID and CAP_SETGID: run as root"
		}
		return &fault.Error{Op: "become user", On: fmt.Sprintf("%d:%d", w.User.UID, w.User.GID), Err: err, Hint: hint}
	}
	return nil
}

// raise makes all that is permitted effective, which becoming another user
// took away, for the steps that follow.
func (w Walls) raise() error {
	_, permitted, inheritable, err := sys.Capget()
	if err == nil {
		err = sys.Capset(permitted, permitted, inheritable)
	}
	if err != nil {
		return &fault.Error{Op: "raise capabilities", Err: err}
	}
	return nil
}

func (w Walls) securebits() error {
	if w.Securebits == nil {
		return nil
	}
	if _, err := sys.Prctl(unix.PR_SET_SECUREBITS, uintptr(*w.Securebits), 0, 0, 0); err != nil {
		return &fault.Error{Op: "set securebits", On: SecurebitsText(*w.Securebits), Err: err, Hint: "it needs CAP_SETPCAP, and what is locked stays"}
	}
	return nil
}

func (w Walls) restrict(ruleset int) error {
	if ruleset < 0 {
		return nil
	}
	if err := sys.LandlockRestrictSelf(ruleset); err != nil {
		return &fault.Error{Op: "restrict files", Err: err, Hint: needsNoNewPrivs(err)}
	}
	return nil
}

func (w Walls) filter() error {
	if w.Filter == nil {
		return nil
	}
	_, err := w.Filter.Install()
	return err
}

func needsNoNewPrivs(err error) string {
	if fault.KindOf(err) != fault.Denied {
		return ""
	}
	return "without CAP_SYS_ADMIN it needs no_new_privs"
}

// Install puts f on the calling thread with seccomp(2). The descriptor is the
// listener's, for the caller to close, where f has the flag NewListener; else
// it is 0.
func (f Filter) Install() (listener int, err error) {
	if len(f.Instructions) == 0 {
		return 0, &fault.Error{Op: "filter system calls", Kind: fault.Invalid, Err: fmt.Errorf("the filter is empty")}
	}
	fd, err := sys.SeccompFilter(f.Flags, unsafe.Pointer(&f.Instructions[0]), len(f.Instructions))
	if err != nil {
		return 0, &fault.Error{Op: "filter system calls", Err: err, Hint: needsNoNewPrivs(err)}
	}
	return fd, nil
}

// setCaps makes the sets what the process is to keep.
func (w Walls) setCaps() error {
	effective, permitted, inheritable, err := sys.Capget()
	if err != nil {
		return &fault.Error{Op: "read capabilities", Err: err}
	}
	if w.Caps != nil {
		// Caps held but not in the bounding set any more are lost too.
		effective, permitted, inheritable = uint64(*w.Caps), uint64(*w.Caps), 0
	}
	inheritable |= uint64(w.Ambient)
	if w.Caps != nil || w.Ambient != 0 {
		if err := sys.Capset(effective, permitted, inheritable); err != nil {
			return &fault.Error{Op: "set capabilities", On: Caps(permitted).String(), Err: err}
		}
	}
	for left := uint64(w.Ambient); left != 0; left &= left - 1 {
		n := bits.TrailingZeros64(left)
		if _, err := sys.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(n), 0, 0); err != nil {
			return &fault.Error{Op: "set ambient capability", On: capName(n), Err: err}
		}
	}
	return nil
}

// securebitNames are the names of setpriv(1), by bit.
func securebitNames() []string {
	return []string{"noroot", "noroot_locked", "no_setuid_fixup", "no_setuid_fixup_locked", "keep_caps", "keep_caps_locked",
		"no_cap_ambient_raise", "no_cap_ambient_raise_locked"}
}

// ParseSecurebits is the bits that a list of names means, with commas, as
// setpriv(1) takes it: "noroot,noroot_locked". Errors are fault.Invalid.
func ParseSecurebits(list string) (int, error) {
	set := 0
	for name := range strings.SplitSeq(list, ",") {
		n := slices.Index(securebitNames(), strings.ReplaceAll(name, "-", "_"))
		if n < 0 {
			return 0, &fault.Error{Op: "set securebits", On: name, Kind: fault.Invalid, Err: fmt.Errorf("there is no such bit"),
				Hint: "names: " + strings.Join(securebitNames(), " ")}
		}
		set |= 1 << n
	}
	return set, nil
}

// SecurebitsText is the names of the bits that are set, with commas, or
// "none".
func SecurebitsText(set int) string {
	var names []string
	for n, name := range securebitNames() {
		if set&(1<<n) != 0 {
			names = append(names, name)
		}
	}
	if names == nil {
		return "none"
	}
	return strings.Join(names, ",")
}
