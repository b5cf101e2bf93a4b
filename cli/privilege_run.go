package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/kernel/privilege"
)

// privilegeWishes are the options of "privilege run" as they were typed.
type privilegeWishes struct {
	caps, ambient, securebits, seccomp, user, groups string
	capAdd, capDrop, ulimits                         []string
	read, write, bind, connect                       []string
	noNewPrivs                                       bool
}

func privilegeRunCommand() *Command {
	var w privilegeWishes
	return &Command{
		Name:  "privilege run",
		Args:  "COMMAND [ARG...]",
		Short: "run a command with fewer privileges",
		Long: `Gives away what the options say and becomes COMMAND: no other process stays. What no option names stays as it is.

Capabilities are changed from those that you hold. LIST is names with commas, as in capabilities(7), with or without "CAP_", or one of the words default (the fourteen that Docker gives), all (that you hold) and none. They reach a COMMAND that runs as root; one that runs as another user gets those of --ambient only.

With one of the --landlock options no file can be opened but those below the paths given, so the program itself and its libraries must be below one of them, /usr and /lib for instance. Nothing needs to be mounted for that, and it holds for all children. Ports are those of TCP: UDP and MPTCP pass.

An ordinary user can use --seccomp, --landlock-..., --no-new-privs and lower limits: the first two then imply --no-new-privs, with which setuid programs such as sudo give no privileges. Root needs it without CAP_SYS_ADMIN only.

The exit code is the command's; 125 if a privilege could not be given away, 126 if the command cannot be executed, 127 if it is not there.`,
		Examples: []string{
			"kiste privilege run --caps none --no-new-privs -- sh",
			"kiste privilege run --seccomp default --landlock-read / --landlock-write /tmp -- make",
			"kiste privilege run --user nobody --ambient net_bind_service -- httpd",
		},
		Options: []option.Row{
			{"--cap-add", "NAME", "keep a capability that --cap-drop or --caps takes away", option.Strings(&w.capAdd)},
			{"--cap-drop", "NAME", "give a capability away; ALL: every one", option.Strings(&w.capDrop)},
			{"--caps", "LIST", "keep exactly these capabilities", option.String(&w.caps)},
			{"--ambient", "LIST", "capabilities that COMMAND has as another user than root too", option.String(&w.ambient)},
			{"--no-new-privs", "", "no program gives privileges any more", option.Bool(&w.noNewPrivs)},
			{"--securebits", "LIST", "bits as setpriv(1) names them, such as noroot,noroot_locked", option.String(&w.securebits)},
			{"--seccomp", "default|unconfined|FILE", "filter system calls by Docker's default profile, or one of your own", option.String(&w.seccomp)},
			{"--landlock-read", "PATH", "files below PATH can be read and executed", option.Strings(&w.read)},
			{"--landlock-write", "PATH", "files below PATH can be changed as well", option.Strings(&w.write)},
			{"--landlock-bind", "PORT", "bind this TCP port and others of this option only", option.Strings(&w.bind)},
			{"--landlock-connect", "PORT", "connect to this TCP port and others of this option only", option.Strings(&w.connect)},
			{"-u, --user", "USER[:GROUP]", "become this user, by name or number", option.String(&w.user)},
			{"--groups", "LIST", "supplementary groups; none: no others; default: those of the user", option.String(&w.groups)},
			{"--ulimit", "NAME=SOFT[:HARD]", "set a limit, such as nofile=1024:2048", option.Strings(&w.ulimits)},
		},
		Min: 1, Max: -1, Rest: true, Complete: "command",
		Run: func(_ context.Context, _ *Env, args []string) error {
			walls, err := w.walls()
			if err != nil {
				return WithCode(125, err)
			}
			file, err := lookCommand(args[0])
			if err != nil {
				return err
			}
			runtime.LockOSThread() // until exec, which keeps what this thread has
			if err := walls.Apply(); err != nil {
				return WithCode(125, err)
			}
			return explainLandlock(become(file, args), walls.Files)
		},
	}
}

// explainLandlock says why a program that is there cannot be executed.
func explainLandlock(err error, files *privilege.Ruleset) error {
	if files == nil || files.Files == 0 || !errors.Is(err, fault.Denied) {
		return err
	}
	return WithCode(126, &fault.Error{Op: "run the command", Kind: fault.Denied, Err: errors.New("Landlock does not let it be read"),
		Hint: "the program and its libraries must be below a --landlock-read path, such as /usr and /lib"})
}

// walls compiles the wishes.
func (w *privilegeWishes) walls() (privilege.Walls, error) {
	var out privilege.Walls
	held, err := privilege.Held()
	if err != nil {
		return out, err
	}
	for _, step := range []func(*privilege.Walls, privilege.Caps) error{w.setCaps, w.setUser, w.setLimits, w.setLandlock, w.setSeccomp} {
		if err := step(&out, held); err != nil {
			return out, err
		}
	}
	const sysAdmin privilege.Caps = 1 << 21
	needs := (out.Filter != nil || out.Files != nil) && !held.Has(sysAdmin)
	out.NoNewPrivs = w.noNewPrivs || needs
	return out, nil
}

func (w *privilegeWishes) setCaps(out *privilege.Walls, held privilege.Caps) error {
	base := held
	if w.caps != "" {
		exact, err := capList(w.caps, held)
		if err != nil {
			return err
		}
		base = exact
	}
	if w.caps != "" || len(w.capAdd)+len(w.capDrop) > 0 {
		set, err := privilege.Adjust(base, w.capAdd, w.capDrop)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(w.capAdd, isAll) {
			set &= held
		}
		out.Caps = &set
	}
	if w.ambient != "" {
		set, err := capList(w.ambient, held)
		if err != nil {
			return err
		}
		if isAll(w.ambient) && out.Caps != nil {
			set = *out.Caps
		}
		out.Ambient = set
	}
	if w.securebits == "" {
		return nil
	}
	bits, err := privilege.ParseSecurebits(w.securebits)
	out.Securebits = &bits
	return err
}

func isAll(name string) bool { return strings.EqualFold(name, "all") }

// capList is the set that LIST means, where all is held.
func capList(list string, held privilege.Caps) (privilege.Caps, error) {
	switch strings.ToLower(list) {
	case "default":
		return privilege.DefaultCaps & held, nil
	case "all":
		return held, nil
	case "none":
		return 0, nil
	}
	return privilege.ParseCaps(strings.Split(list, ","))
}

func (w *privilegeWishes) setLimits(out *privilege.Walls, _ privilege.Caps) error {
	for _, s := range w.ulimits {
		l, err := privilege.ParseRlimit(s)
		if err != nil {
			return err
		}
		out.Rlimits = append(out.Rlimits, l)
	}
	return nil
}

func (w *privilegeWishes) setLandlock(out *privilege.Walls, _ privilege.Caps) error {
	var r privilege.Ruleset
	if len(w.read)+len(w.write) > 0 {
		r = privilege.FilesOnly(w.read, w.write)
	}
	for _, net := range []struct {
		ports []string
		right uint64
	}{{w.bind, privilege.PortsBind}, {w.connect, privilege.PortsConnect}} {
		for _, port := range net.ports {
			n, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				return &fault.Error{Op: "allow port", On: port, Kind: fault.Invalid, Err: errors.New("want a number from 0 to 65535")}
			}
			r.Ports |= net.right
			r.Net = append(r.Net, privilege.PortRule{Port: uint16(n), Allow: net.right})
		}
	}
	if r.Empty() {
		return nil
	}
	if abi := privilege.LandlockABI(); r.Ports != 0 && abi < 4 {
		return &fault.Error{Op: "restrict ports", Kind: fault.Unsupported, Err: fmt.Errorf("this kernel has version %d of Landlock and not version 4", abi), Hint: "Linux 6.7 and later have it"}
	}
	out.Files = &r
	return nil
}

func (w *privilegeWishes) setSeccomp(out *privilege.Walls, held privilege.Caps) error {
	caps := held
	if out.Caps != nil {
		caps = *out.Caps
	}
	switch w.seccomp {
	case "", "unconfined":
		return nil
	case "default":
		f, err := privilege.DefaultFilter(caps)
		out.Filter = &f
		return err
	}
	f, err := filterFile(w.seccomp, caps)
	out.Filter = f
	return err
}

// filterFile compiles the profile in a file. Nil: it says unconfined.
func filterFile(path string, caps privilege.Caps) (*privilege.Filter, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, &fault.Error{Op: "read seccomp profile", Err: err, Hint: "want default, unconfined, or the path of a profile"}
	}
	defer file.Close()
	profile, err := privilege.ReadProfile(file, caps, runtime.GOARCH)
	if err != nil || profile == nil {
		return nil, err
	}
	f, err := privilege.Compile(profile, runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	if f.Flags&privilege.NewListener != 0 {
		return nil, &fault.Error{Op: "use seccomp profile", On: path, Kind: fault.Unsupported,
			Err: errors.New("it notifies (SCMP_ACT_NOTIFY), and nobody is left here who could answer")}
	}
	return &f, nil
}

// setUser finds ids and groups in /etc/passwd and /etc/group, as login does.
func (w *privilegeWishes) setUser(out *privilege.Walls, _ privilege.Caps) error {
	if w.user == "" && w.groups == "" {
		return nil
	}
	name, group, hasGroup := strings.Cut(w.user, ":")
	if w.user == "" {
		name = strconv.Itoa(os.Getuid())
		group, hasGroup = strconv.Itoa(os.Getgid()), true
	}
	id, account, err := lookUser(name)
	if err != nil {
		return err
	}
	u := privilege.User{UID: id, Groups: []uint32{}}
	switch {
	case hasGroup:
		u.GID, err = lookGroup(group)
	case account != nil:
		u.GID, err = strconv.Atoi(account.Gid)
	default:
		err = &fault.Error{Op: "become user", On: name, Kind: fault.Invalid, Err: errors.New("/etc/passwd does not know its group"), Hint: "write UID:GID"}
	}
	if err != nil {
		return err
	}
	switch w.groups {
	case "none":
	case "", "default":
		u.Groups = groupsOf(account)
	default:
		for g := range strings.SplitSeq(w.groups, ",") {
			n, err := lookGroup(g)
			if err != nil {
				return err
			}
			u.Groups = append(u.Groups, uint32(n))
		}
	}
	out.User = &u
	return nil
}

// lookUser takes a name or a number. The account is nil where /etc/passwd has
// none of that number.
func lookUser(name string) (int, *user.User, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		account, err := user.LookupId(name)
		if err != nil {
			account = nil
		}
		return int(n), account, nil
	}
	account, err := user.Lookup(name)
	if err != nil {
		return 0, nil, &fault.Error{Op: "become user", On: name, Kind: fault.NotFound, Err: errors.New("there is no such user")}
	}
	n, err := strconv.Atoi(account.Uid)
	return n, account, err
}

func lookGroup(name string) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, &fault.Error{Op: "become group", On: name, Kind: fault.NotFound, Err: errors.New("there is no such group")}
	}
	return strconv.Atoi(g.Gid)
}

// groupsOf are the supplementary groups that /etc/group gives an account.
func groupsOf(account *user.User) []uint32 {
	out := []uint32{}
	if account == nil {
		return out
	}
	names, err := account.GroupIds()
	if err != nil {
		return out
	}
	for _, s := range names {
		if n, err := strconv.ParseUint(s, 10, 32); err == nil {
			out = append(out, uint32(n))
		}
	}
	return out
}
