// Package cli is the command line: words in, words and exit codes out.
//
//	takes    arguments, streams
//	gives    an exit code
//	touches  the terminal; everything else through the rooms below
//	state    none
//
// A command is a file NOUN_VERB.go and a row in the table of table.go. The
// row's constructor returns a Command: its options are a table too, from which
// the parser, the help texts, the man pages and the shell completion come.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"kiste/cli/option"
	"kiste/cli/terminal"
	"kiste/fault"
)

// An Env is what a command may touch of the process around it.
type Env struct {
	In       *os.File
	Out, Err io.Writer
	Stdout   *os.File // the file under Out, for terminals and children
	Stderr   *os.File

	// Heavy has the commands that need the libraries that only kisted
	// links, by name. In kiste it is nil, and such a command becomes kisted.
	Heavy map[string]func(ctx context.Context, env *Env, args []string, options any) error

	// Format shows a listing by text/template, which only kisted links.
	Format func(w io.Writer, s *Sheet) error

	// Template makes a function of a template that writes a line for a value;
	// only kisted has them.
	Template func(text string) (func(w io.Writer, v any) error, error)

	// Match reports whether a regular expression fits text; only kisted has
	// them. One that is none fits nothing, as for Docker.
	Match func(expression, text string) bool

	words []string // the command line, for who becomes kisted
}

func (e *Env) user() terminal.User {
	return terminal.User{In: e.In, Out: e.Out, Err: e.Err, Stdout: e.Stdout, Stderr: e.Stderr}
}

// template is Template, or errNotPlain in kiste.
func (e *Env) template(text string) (func(w io.Writer, v any) error, error) {
	if e.Template == nil {
		return nil, errNotPlain
	}
	return e.Template(text)
}

// A Command is one verb.
type Command struct {
	Name    string       // "run", "cgroup run"
	Args    string       // "IMAGE [COMMAND [ARG...]]", for the usage line
	Short   string       // one line, without a full stop
	Long    string       // paragraphs for help and man page; indented lines stay as they are
	Options []option.Row // in the order in which help shows them
	Min     int          // least number of arguments
	Max     int          // most; -1: any number

	// Examples are whole lines to type: "kiste run debian sh".
	Examples []string

	// Rest: options end at the first argument, as in "run IMAGE ls -l".
	Rest bool

	// Run does it. Args are what is left when the options are taken out.
	Run func(ctx context.Context, env *Env, args []string) error

	// Heavy names the row of Env.Heavy that does it instead of Run, with
	// HeavyOptions as its options.
	Heavy        string
	HeavyOptions any

	// Complete says what completion offers as argument: "image",
	// "container", "file", "dir", "command" or "".
	Complete string

	// Hidden commands are for programs: no help text lists them.
	Hidden bool

	// Misused is the exit code of wrong usage; 0: as for all, 2.
	Misused int

	// Raw commands get their words as they are: no option is taken out.
	Raw bool
}

// An ExitError ends the process with Code and without a word: the code of a
// container's own process.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// exitCode is the promise made to scripts; "kiste help exit" prints it.
func exitCode(k fault.Kind) int {
	for _, row := range exitCodes() {
		if row.kind != "" && row.kind == k {
			return row.code
		}
	}
	return 1
}

type exitRow struct {
	code int
	kind fault.Kind // empty: not the code of a kind
	text string
}

// exitCodes is a function and not a variable, since a start that succeeds
// should not pay for it.
func exitCodes() []exitRow {
	return []exitRow{
		{0, "", "success"},
		{1, fault.Conflict, "any other error; something is in use or in the wrong state, as docker has it"},
		{2, fault.Invalid, "wrong usage, or something given does not make sense"},
		{3, fault.NotFound, "something named is not there"},
		{4, fault.Exists, "something of that name is there already"},
		{6, fault.Denied, "the kernel or a registry does not permit it"},
		{7, fault.Unsupported, "this host cannot do it; see kiste doctor"},
		{8, fault.Unavailable, "something is missing at the moment: a registry, disk space, memory"},
		{125, "", "run, exec: kiste itself failed before the process started"},
		{126, "", "run, exec: the command is there but cannot be executed"},
		{127, "", "run, exec: the command was not found"},
		{128, "", "128+n: the process ended by signal n; 130 is an interrupt"},
	}
}

// Exit shows err, if any, and returns the exit code that goes with it. It is
// the only function in Kiste that shows an error to a person.
func Exit(env *Env, err error) int {
	var own *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own) && errors.Unwrap(err) == nil && err == error(own):
		return own.Code
	case errors.Is(err, context.Canceled):
		return 130
	}
	fmt.Fprintf(env.Err, "kiste: cannot %v\n", err)
	if hint := fault.HintOf(err); hint != "" {
		fmt.Fprintf(env.Err, "  hint: %s\n", hint)
	}
	if own != nil {
		return own.Code
	}
	return exitCode(fault.KindOf(err))
}

// WithCode makes Exit show err and return code in place of its kind's, as run
// and exec do (125, 126, 127).
func WithCode(code int, err error) error { return &codedError{err, &ExitError{code}} }

type codedError struct {
	error
	code *ExitError
}

func (e *codedError) Unwrap() error { return e.error }

// As finds the code beside the error: Unwrap leads to the error alone, so that
// its kind and its hint are found.
func (e *codedError) As(target any) bool {
	p, ok := target.(**ExitError)
	if ok {
		*p = e.code
	}
	return ok
}

// Main carries out the command that args name and returns the exit code.
func Main(ctx context.Context, env *Env, args []string) int {
	return Exit(env, dispatch(ctx, env, args))
}
