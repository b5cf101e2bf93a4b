package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/kernel/namespace"
	"kiste/store"
)

// namespaceWords are what "kiste namespace run" is told.
type namespaceWords struct {
	kinds     []kindWord
	uids      []string
	gids      []string
	mapRoot   bool
	mapKeep   bool
	mapAuto   bool
	all       bool
	o         namespace.Options
	monotonic string
	boottime  string
}

// A kindWord is the option of one kind: "" for not given, "true" for a new
// namespace, else what to join.
type kindWord struct {
	kind  namespace.Kind
	value string
}

func namespaceRunCommand() *Command {
	w := &namespaceWords{}
	for _, k := range namespace.Kinds() {
		w.kinds = append(w.kinds, kindWord{kind: k})
	}
	options := kindOptions(w.kinds, "new, or that of a pid, pin or file: ")
	return &Command{
		Name:  "namespace run",
		Args:  "[COMMAND [ARG...]]",
		Short: "run a command in namespaces of its own",
		Long: `Makes the namespaces asked for and becomes the command, $SHELL without one. An
option such as --net makes a new namespace; --net=TARGET joins one.

Nothing stays behind, except with --pid, --time and --user: there this
process stays as the parent, hands signals on and ends with the command's
code, 128+n after signal n. The code is 125 if the namespaces could not be
made, 126 if the command cannot be executed, 127 if it is not there. Process 1 of a pid namespace gets only the signals
that it handles.`,
		Options: append(options,
			option.Row{"-a, --all", "", "all kinds", option.Bool(&w.all)},
			option.Row{"-r, --map-root, --map-root-user", "", "be root inside, yourself outside (implies --user)", option.Bool(&w.mapRoot)},
			option.Row{"-c, --keep-id, --map-current-user", "", "be yourself inside too (implies --user)", option.Bool(&w.mapKeep)},
			option.Row{"--map-auto", "", "be root inside, with your ranges of /etc/subuid and /etc/subgid (implies --user)", option.Bool(&w.mapAuto)},
			option.Row{"--map-users", "IN:OUT:SIZE", "map user ids (implies --user)", option.Strings(&w.uids)},
			option.Row{"--map-groups", "IN:OUT:SIZE", "map group ids; without it as the users", option.Strings(&w.gids)},
			option.Row{"--hostname", "NAME", "set the host name (implies --uts)", option.String(&w.o.Hostname)},
			option.Row{"--monotonic", "OFFSET", "add to the monotonic clock: 1h, -30s, or seconds (implies --time)", option.String(&w.monotonic)},
			option.Row{"--boottime", "OFFSET", "add to the boot-time clock (implies --time)", option.String(&w.boottime)},
			option.Row{"--mount-proc", "", "mount a new /proc (implies --mount)", option.Bool(&w.o.MountProc)},
			option.Row{"--propagation", "HOW", "of mounts: private (default), slave, shared, unchanged", option.String(&w.o.Propagation)},
			option.Row{"--kill-child", "", "end the command when this process ends", option.Bool(&w.o.KillChild)},
		),
		Max:  -1,
		Rest: true,
		Examples: []string{
			"kiste namespace run --pid --mount-proc -- ps",
			"kiste namespace run --map-root --net -- ip link",
			"kiste namespace run --uts --net=blue -- sh",
		},
		Complete: "command",
		Run: func(_ context.Context, _ *Env, args []string) error {
			o, err := w.options(args)
			if err != nil {
				return ended(0, err)
			}
			return ended(namespace.Run(o))
		},
	}
}

// kindOptions are the options that name kinds, with unshare's letters.
func kindOptions(words []kindWord, help string) []option.Row {
	letter := func(name string) string {
		switch name {
		case "user":
			return "-U"
		case "cgroup":
			return "-C"
		case "time":
			return "-T"
		}
		return "-" + name[:1]
	}
	var options []option.Row
	for i := range words {
		k := words[i].kind
		options = append(options, option.Row{letter(k.Name) + ", --" + k.Name, "", help + k.Isolates, option.String(&words[i].value)})
	}
	slices.SortFunc(options, func(a, b option.Row) int { return strings.Compare(strings.ToLower(a.Names), strings.ToLower(b.Names)) })
	return options
}

// ended is how a command's end becomes this one's: its code, 126 and 127 when
// it could not be started, 125 when it did not come to that.
func ended(code int, err error) error {
	var not *namespace.NotStarted
	switch {
	case errors.As(err, &not) && fault.KindOf(err) == fault.NotFound:
		return WithCode(127, err)
	case errors.As(err, &not):
		return WithCode(126, err)
	case err != nil:
		return WithCode(125, err)
	case code != 0:
		return &ExitError{code}
	}
	return nil
}

func pins() namespace.Pins {
	return namespace.Pins{Dir: filepath.Join(store.Locate().Run, "namespaces")}
}

func (w *namespaceWords) options(args []string) (namespace.Options, error) {
	o := w.o
	o.Args = args
	if err := errors.Join(clock(w.monotonic, &o.Monotonic), clock(w.boottime, &o.Boottime)); err != nil {
		return o, err
	}
	implied := map[string]bool{
		"uts":   o.Hostname != "",
		"mount": o.MountProc,
		"time":  w.monotonic != "" || w.boottime != "",
		"user":  w.mapRoot || w.mapKeep || w.mapAuto || len(w.uids)+len(w.gids) > 0,
	}
	for _, k := range w.kinds {
		switch {
		case k.value == "true" || k.value == "" && (w.all || implied[k.kind.Name]):
			o.New = append(o.New, k.kind)
		case k.value != "" && k.value != "false":
			found, err := namespace.Targets(pins(), k.value, k.kind)
			if err != nil {
				return o, err
			}
			o.Join = append(o.Join, found...)
		}
	}
	var err error
	o.UIDs, o.GIDs, err = w.maps()
	return o, err
}

func clock(text string, to *time.Duration) error {
	if text == "" {
		return nil
	}
	if _, err := strconv.ParseInt(text, 10, 64); err == nil {
		text += "s"
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return &fault.Error{Op: "take clock offset", On: text, Kind: fault.Invalid, Err: errors.New("want seconds or 1h30m")}
	}
	*to = d
	return nil
}

// maps are the id maps that the options ask for.
func (w *namespaceWords) maps() (uids, gids namespace.IDMaps, err error) {
	uid, gid := uint32(os.Geteuid()), uint32(os.Getegid())
	switch {
	case len(w.uids)+len(w.gids) > 0:
		if len(w.gids) == 0 {
			w.gids = w.uids
		}
		if uids, err = parseMaps(w.uids); err == nil {
			gids, err = parseMaps(w.gids)
		}
		return uids, gids, err
	case w.mapAuto:
		u, g, err := namespace.Subordinate(strconv.Itoa(os.Geteuid()))
		if err == nil && (len(u) == 0 || len(g) == 0) {
			err = &fault.Error{Op: "map ids", Kind: fault.Unsupported, Err: fmt.Errorf("/etc/subuid or /etc/subgid has nothing for user %d", uid),
				Hint: "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER, or --map-root for your own id alone"}
		}
		return namespace.RootMap(uid, u), namespace.RootMap(gid, g), err
	case w.mapRoot:
		return namespace.RootMap(uid, nil), namespace.RootMap(gid, nil), nil
	case w.mapKeep:
		return namespace.IDMaps{{Inside: uid, Outside: uid, Size: 1}}, namespace.IDMaps{{Inside: gid, Outside: gid, Size: 1}}, nil
	}
	return nil, nil, nil
}

func parseMaps(words []string) (namespace.IDMaps, error) {
	if len(words) == 0 {
		return nil, nil
	}
	return namespace.ParseIDMaps(strings.Join(words, ","))
}
