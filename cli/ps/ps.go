// Package ps asks the host's ps, and keeps of what it prints the processes that
// are asked for.
//
//	takes    options of ps, process IDs as the host has them
//	gives    the text that ps printed, or a table of its columns
//	touches  /proc, by the host's ps; nothing of a container is executed
//	state    none
package ps

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/internal/sys"
)

// Ask gives what ps prints with the options, or with -ef where there are none.
func Ask(options []string) (string, error) {
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	sys.Timely()
	out, err := exec.Command("ps", options...).CombinedOutput()
	if err != nil {
		return "", &fault.Error{Op: "run ps", Err: fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))}
	}
	return string(out), nil
}

// AskOf is Ask that has ps select pids, since without a selection among the
// options ps shows its caller's own session only. Some options, such as f,
// cannot be with a selection: there it is Ask, as in Docker.
func AskOf(pids []int, options []string) (string, error) {
	if len(options) > 0 && len(pids) > 0 {
		list := strings.ReplaceAll(strings.Trim(fmt.Sprint(pids), "[]"), " ", ",")
		if text, err := Ask(append(slices.Clone(options), "-q", list)); err == nil {
			return text, nil
		}
	}
	return Ask(options)
}

// Only keeps the heading of what ps printed, and the lines of pids. A line with
// "-" for a process is of a thread, and belongs to the line before.
func Only(text string, pids []int) (string, error) {
	heading, rest, _ := strings.Cut(text, "\n")
	column := slices.Index(strings.Fields(heading), "PID")
	if column < 0 {
		return "", &fault.Error{Op: "read what ps printed", Kind: fault.Invalid, Err: errors.New("couldn't find PID field in ps output"),
			Hint: "choose columns with PID among them: -o pid,args"}
	}
	var b strings.Builder
	b.WriteString(heading + "\n")
	kept := false
	for line := range strings.Lines(rest) {
		f := strings.Fields(line)
		if len(f) <= column {
			continue
		}
		if f[column] != "-" {
			pid, err := strconv.Atoi(f[column])
			if err != nil {
				return "", &fault.Error{Op: "read what ps printed", Kind: fault.Invalid, Err: fmt.Errorf("unable to parse pid: %w", err)}
			}
			kept = slices.Contains(pids, pid)
		}
		if kept {
			b.WriteString(line)
		}
	}
	return b.String(), nil
}

// Rows are the columns of what ps printed, the heading first. The last one has
// all that is left of its line.
func Rows(text string) [][]string {
	var rows [][]string
	width := 0
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if width == 0 {
			width = len(f)
		}
		if width > 0 && len(f) > width {
			f = append(f[:width-1:width-1], strings.Join(f[width-1:], " "))
		}
		rows = append(rows, f)
	}
	return rows
}
