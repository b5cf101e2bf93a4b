package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/cli/option"
	"kiste/container/bundle"
	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
)

// serviceChoices say how a container belongs to the unit of systemd that runs
// this command.
type serviceChoices struct {
	Split  bool
	Notify string // "" as notifyContainer where systemd wants to hear
}

// Who tells systemd that a service has come up. The names are Podman's.
const (
	notifyContainer = "container" // the container's own program: sd_notify(3)
	notifyConmon    = "conmon"    // Kiste, when it is started
	notifyHealthy   = "healthy"   // Kiste, when its health check is content
	notifyIgnore    = "ignore"    // nobody
)

func serviceOptions(s *serviceChoices) []option.Row {
	return []option.Row{
		{"--cgroups", "HOW", "enabled; split: below the cgroup of the systemd unit that runs this", func(v string) error {
			s.Split = v == "split"
			if v != "split" && v != "enabled" && v != "no-conmon" {
				return errors.New("want enabled, no-conmon or split")
			}
			return nil
		}},
		{"--sdnotify", "WHO", "who tells systemd that it is ready: container, conmon (kiste, when it runs), healthy, ignore", func(v string) error {
			s.Notify = v
			if !slices.Contains([]string{notifyContainer, notifyConmon, notifyHealthy, notifyIgnore}, v) {
				return errors.New("want container, conmon, healthy or ignore")
			}
			return nil
		}},
	}
}

// given reports whether the container is a matter of a unit's.
func (s *serviceChoices) given() bool { return s.Split || s.socket() != "" }

// socket is where systemd wants to hear of it; empty: nowhere.
func (s *serviceChoices) socket() string {
	if s.Notify == notifyIgnore {
		return ""
	}
	return os.Getenv("NOTIFY_SOCKET")
}

// notifyInside is where the container finds systemd's socket.
const notifyInside = "/run/notify/notify.sock"

// wish lets the container's program speak with systemd, where it shall.
func (s *serviceChoices) wish(w *bundle.Wishes) error {
	socket := s.socket()
	switch {
	case s.Notify == notifyHealthy && len(w.Health.Test) > 0 && w.Health.Test[0] == "NONE":
		return &fault.Error{Op: "use option", On: "--sdnotify", Kind: fault.Invalid, Err: errors.New("sdnotify policy healthy requires a healthcheck to be set")}
	case socket == "" || s.Notify != "" && s.Notify != notifyContainer:
		return nil
	case !strings.HasPrefix(socket, "/"):
		return &fault.Error{Op: "use option", On: "--sdnotify", Kind: fault.Unsupported, Err: fmt.Errorf("the container cannot reach %s, which is no file", socket), Hint: "--sdnotify=conmon"}
	}
	w.Mounts = append(w.Mounts, bundle.Mount{Type: "bind", Source: socket, Target: notifyInside, NonRecursive: true, NoIDMap: true, Option: "--sdnotify", Text: notifyContainer})
	w.Env = append(w.Env, "NOTIFY_SOCKET="+notifyInside)
	return nil
}

// unit is the cgroup below which the container belongs; empty: Kiste's own.
func (s *serviceChoices) unit() (string, error) {
	if !s.Split {
		return "", nil
	}
	return engine.Unit()
}

// startInUnit starts a container that belongs to the unit that this process is in,
// where it shall.
func startInUnit(e *engine.Engine, name string, o engine.StartOptions, s *serviceChoices) (session *engine.Session, err error) {
	if o.Unit, err = s.unit(); err != nil {
		return nil, err
	}
	return e.Start(name, o)
}

// tell is started for who stays, beside what he has to do.
func (s *serviceChoices) tell(env *Env, e *engine.Engine, session *engine.Session) {
	if s.socket() == "" {
		return
	}
	go func() {
		if err := s.started(e, session, false); err != nil {
			env.note(err.Error())
		}
	}()
}

// started tells systemd. Main: this process is going to end, and the container's
// is what the unit is about.
func (s *serviceChoices) started(e *engine.Engine, session *engine.Session, main bool) error {
	socket := s.socket()
	if socket == "" {
		return nil
	}
	var lines []string
	if main {
		lines = append(lines, fmt.Sprintf("MAINPID=%d\n", session.Process.PID))
	}
	if s.Notify == notifyHealthy {
		if err := e.AwaitHealthy(session.ID); err != nil {
			return err
		}
	}
	if s.Notify == notifyConmon || s.Notify == notifyHealthy {
		lines = append(lines, "READY=1\n")
	}
	if err := sys.Notify(socket, lines...); err != nil {
		return &fault.Error{Op: "notify", On: socket, Err: err}
	}
	return nil
}

// recorded lets asked collect the options that are typed, each in the form
// "--name=value", so that they mean the same in every directory.
func recorded(rows []option.Row, asked *[]string) []option.Row {
	for i := range rows {
		names, take := option.Names(rows[i]), rows[i].Var
		name := names[len(names)-1]
		rows[i].Var = func(v string) error {
			*asked = append(*asked, name+"="+anywhere(name, v))
			return take(v)
		}
	}
	return rows
}

// anywhere is the value of an option with each path of the caller's from the root on.
func anywhere(name, value string) string {
	switch name {
	case "--env-file", "--label-file":
		return absolute(value)
	case "--volume":
		if source, rest, both := strings.Cut(value, ":"); both && strings.HasPrefix(source, ".") {
			return absolute(source) + ":" + rest
		}
	case "--mount":
		words := strings.Split(value, ",")
		for i, word := range words {
			if key, source, _ := strings.Cut(word, "="); (key == "source" || key == "src") && strings.HasPrefix(source, ".") {
				words[i] = key + "=" + absolute(source)
			}
		}
		return strings.Join(words, ",")
	case "--security-opt":
		if file, ok := strings.CutPrefix(value, "seccomp="); ok && file != "unconfined" {
			return "seccomp=" + absolute(file)
		}
	}
	return value
}

// absolute is path from the root on, or as it is where nobody knows where this is.
func absolute(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		return abs
	}
	return path
}
