// Package oci is the command line of an OCI runtime, runc's: words in, JSON,
// words and exit codes out.
//
//	takes    arguments, streams, LISTEN_FDS, NOTIFY_SOCKET
//	gives    an exit code
//	touches  the terminal, the log, sockets that it is given; everything else through package lifecycle
//	state    none
//
// A verb is a constructor and a row in the table of table.go. What other
// programs read (JSON, texts of errors, the log, exit codes) is as runc 1.5
// has it; what people read is Kiste's.
package oci

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/fault"
)

// Version is set by the linker: -X kiste/cli/oci.Version=….
var Version = "development"

// program is what this command line calls itself.
const program = "kiste-runtime"

// An Env is what a verb may touch of the process around it.
type Env struct{ In, Out, Err *os.File }

// A session is one command line being carried out.
type session struct {
	env      *Env
	log      *log
	root     string // where the state of containers is; empty: the default
	debug    bool
	systemd  bool   // groups are made by systemd
	manager  string // crun's word for it: cgroupfs, systemd or disabled
	rootless string // "true", "false", or "auto": whether cgroups that cannot be made are no error
}

// An exitError ends the process with Code and without a word: the code of a
// container's own process.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// A codedError is shown, and then ends the process with its code.
type codedError struct {
	error
	code int
}

func (e *codedError) Unwrap() error { return e.error }

// Main carries out the command line args and returns the exit code.
func Main(env *Env, args []string) int {
	s := &session{env: env, log: &log{to: env.Err}}
	return s.exit(s.dispatch(args))
}

// exit shows err, if any, and returns the exit code that goes with it.
func (s *session) exit(err error) int {
	var own *exitError
	var coded *codedError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own):
		return own.code
	}
	s.log.failure(err)
	if errors.As(err, &coded) {
		return coded.code
	}
	return 1
}

// dispatch takes the global options off args and gives the rest to the verb.
func (s *session) dispatch(args []string) error {
	var g globals
	left, err := option.Parse(g.options(s), args, option.Rest|option.AnyDash)
	switch {
	case err == option.ErrHelp:
		return s.print(overview())
	case err != nil:
		return err
	case g.version:
		return s.print(versionText())
	case len(left) == 0:
		return s.print(overview())
	}
	if err := s.open(&g); err != nil {
		return err
	}
	v := find(left[0])
	if v == nil {
		return unknown(left[0])
	}
	words, err := take(v, left[1:])
	if err == option.ErrHelp {
		return s.print(described(v).Help())
	}
	if err != nil {
		return err
	}
	return v.run(s, words)
}

// globals are the options before the verb that are not a session's field.
type globals struct {
	version     bool
	log, format string
	criu, root  string
}

func (g *globals) options(s *session) []option.Row {
	return []option.Row{
		{"--root", "DIR", "keep the state of containers there; best on a tmpfs", option.String(&g.root)},
		{"--log", "FILE", "write what goes wrong there too, for programs", option.String(&g.log)},
		{"--log-format", "text|json", "of what goes wrong", option.String(&g.format)},
		{"--debug", "", "tell every step", option.Bool(&s.debug)},
		{"--systemd-cgroup", "", "let systemd make the cgroups; cgroupsPath is then SLICE:PREFIX:NAME", option.Bool(&s.systemd)},
		{"--cgroup-manager", "cgroupfs|systemd|disabled", "who makes the cgroups", oneOf(&s.manager, "cgroupfs", "systemd", "disabled")},
		{"--rootless", "true|false|auto", "go on where cgroups may not be made", trueFalseAuto(&s.rootless)},
		{"--criu", "FILE", "of no effect: criu is looked up on $PATH", option.String(&g.criu)},
		{"-v, --version", "", "print the version", option.Bool(&g.version)},
	}
}

// open makes of the global options what verbs ask for.
func (s *session) open(g *globals) error {
	if s.manager == "systemd" {
		s.systemd = true
	}
	if g.root != "" {
		root, err := absolute(g.root)
		if err != nil {
			return err
		}
		if root == "/" {
			return option.Bad("--root", errors.New("it is /"))
		}
		s.root = root
	}
	return s.log.open(g.log, g.format, s.debug)
}

func (s *session) print(text string) error {
	_, err := s.env.Out.WriteString(text)
	return err
}

// versionText is in the form that engines read runc's in.
func versionText() string {
	return fmt.Sprintf("%s version %s\nspec: %s\ngo: %s\n", program, Version, specs.Version, runtime.Version())
}

// take parses words by the verb's tables and returns its arguments.
func take(v *verb, words []string) ([]string, error) {
	if v.raw {
		return words, nil
	}
	style := option.AnyDash
	if v.rest {
		style |= option.Rest
	}
	left, err := option.Parse(v.options, words, style)
	if err == nil && (len(left) < v.min || v.max >= 0 && len(left) > v.max) {
		err = &fault.Error{Op: "take arguments", Kind: fault.Invalid, Err: fmt.Errorf("it wants %s and got %q", wanted(v), left)}
	}
	if err != nil && err != option.ErrHelp && fault.HintOf(err) == "" {
		err = &fault.Error{Op: v.name, Hint: program + " " + v.name + " --help shows its usage", Err: err}
	}
	return left, err
}

func wanted(v *verb) string {
	if v.args == "" {
		return "no argument"
	}
	return v.args
}
