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
}

// A Command is one verb.
type Command struct {
	Name    string   // "run", "cgroup run"
	Args    string   // "IMAGE [COMMAND [ARG...]]", for the usage line
	Short   string   // one line, without a full stop
	Long    string   // paragraphs for help and man page
	Options []Option // in the order in which help shows them
	Min     int      // least number of arguments
	Max     int      // most; -1: any number

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
}

// An ExitError ends the process with Code and without a word: the code of a
// container's own process.
type ExitError struct{ Code int }

func (e *ExitError) Error() string { return fmt.Sprintf("exit code %d", e.Code) }

// exitCode is the promise made to scripts; "kiste help exit" prints it.
var exitCode = map[fault.Kind]int{
	fault.Invalid: 2, fault.NotFound: 3, fault.Exists: 4, fault.Conflict: 5,
	fault.Denied: 6, fault.Unsupported: 7, fault.Unavailable: 8,
}

// Exit shows err, if any, and returns the exit code that goes with it. It is
// the only function in Kiste that shows an error to a person.
func Exit(env *Env, err error) int {
	var own *ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &own) && errors.Unwrap(err) == nil:
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
	if code, ok := exitCode[fault.KindOf(err)]; ok {
		return code
	}
	return 1
}

// WithCode makes Exit show err and return code in place of its kind's, as run
// and exec do (125, 126, 127).
func WithCode(code int, err error) error { return &codedError{err, &ExitError{code}} }

type codedError struct {
	error
	code *ExitError
}

func (e *codedError) Unwrap() []error { return []error{e.error, e.code} }

// Main carries out the command that args name and returns the exit code.
func Main(ctx context.Context, env *Env, args []string) int {
	return Exit(env, dispatch(ctx, env, args))
}
