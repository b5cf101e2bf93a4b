package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// An event is a line of go test -json: see go doc test2json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64 // seconds
	FailedBuild                   string
}

// A report is what a run has told so far. Out gets what go test alone would print:
// the output of what failed, and of each package one line.
type report struct {
	out io.Writer

	took     []timed
	failures []*failure
	unsteady []string               // what tests told of second tries of their own
	output   map[[2]string][]string // of tests under way, by package and name
	tests    map[string][]timed     // that failed, by package
	crashed  map[string]bool        // packages of which not every test has been run
}

type timed struct {
	pkg, test string // no test: the package
	took      time.Duration
}

// A failure is what is to be run once more.
type failure struct {
	pkg   string
	tests string // a pattern for -run; "": the whole package
	again bool   // a second try can tell more
	took  time.Duration
}

func (f *failure) String() string { return strings.TrimSpace(f.pkg + " " + f.tests) }

func (f *failure) arguments() []string {
	if f.tests == "" {
		return []string{f.pkg}
	}
	return []string{"-run", f.tests, f.pkg}
}

// maxLine bounds an event: a line that a test prints.
const maxLine = 16 << 20

func (r *report) read(events io.Reader) error {
	r.output, r.tests, r.crashed = map[[2]string][]string{}, map[string][]timed{}, map[string]bool{}
	lines := bufio.NewScanner(events)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(r.out, lines.Text())
			continue
		}
		r.take(e)
	}
	return lines.Err()
}

// progress are the lines by which a test tells that it begins or goes on.
var progress = regexp.MustCompile(`^=== (RUN|PAUSE|CONT|NAME) `)

func (r *report) take(e event) {
	key := [2]string{e.Package, e.Test}
	t := timed{e.Package, e.Test, time.Duration(e.Elapsed * float64(time.Second))}
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.out, e.Output)
	case "output":
		r.line(key, e.Output)
	case "pass", "skip", "fail":
		if e.Test == "" {
			r.ended(t, e)
			return
		}
		r.took = append(r.took, t)
		if e.Action == "fail" {
			r.tests[e.Package] = append(r.tests[e.Package], t)
			fmt.Fprint(r.out, strings.Join(r.output[key], ""))
		} else if slices.ContainsFunc(r.output[key], isUnsteady) {
			fmt.Fprint(r.out, strings.Join(r.output[key][max(0, len(r.output[key])-told):], ""))
		}
		delete(r.output, key)
	}
}

func (r *report) line(key [2]string, text string) {
	switch {
	case progress.MatchString(text):
		return
	case strings.HasPrefix(text, "panic: "):
		r.crashed[key[0]] = true
	case isUnsteady(text):
		r.unsteady = append(r.unsteady, strings.TrimSpace(text))
	}
	r.output[key] = append(r.output[key], text)
}

// unsteady is how a second try is told of that passed.
const unsteady = "NOT STEADY, failed above and passed when tested once more"

func isUnsteady(line string) bool { return strings.Contains(line, unsteady) }

// told is how many of its last lines are shown of a test that passed, but tells so.
const told = 400

// ended hears of the end of a package. What its tests were about when it ended too
// early is told, too.
func (r *report) ended(t timed, e event) {
	lines := r.output[[2]string{t.pkg, ""}]
	if e.Action == "fail" {
		for key, left := range r.output {
			if key[0] == t.pkg && key[1] != "" {
				fmt.Fprint(r.out, strings.Join(left, ""))
			}
		}
		fmt.Fprint(r.out, strings.Join(lines, ""))
		r.failures = append(r.failures, failuresOf(t, r.tests[t.pkg], e.FailedBuild == "" && !r.crashed[t.pkg])...)
	} else if len(lines) > 0 {
		fmt.Fprint(r.out, lines[len(lines)-1])
	}
	maps.DeleteFunc(r.output, func(key [2]string, _ []string) bool { return key[0] == t.pkg })
}

// failuresOf are the failures of a package, one for each of its tests with those
// parts that failed; the whole package where no test of it did.
func failuresOf(pkg timed, tests []timed, again bool) (all []*failure) {
	parts := map[string]map[string]bool{}
	took := map[string]time.Duration{}
	for _, t := range tests {
		top, rest, _ := strings.Cut(t.test, "/")
		part, _, deeper := strings.Cut(rest, "/")
		if parts[top] == nil {
			parts[top] = map[string]bool{}
		}
		if part != "" {
			parts[top][regexp.QuoteMeta(part)] = true
		}
		if !deeper && part != "" || took[top] == 0 {
			took[top] += t.took
		}
	}
	for _, top := range slices.Sorted(maps.Keys(parts)) {
		pattern := "^" + regexp.QuoteMeta(top) + "$"
		if len(parts[top]) > 0 {
			pattern += "/^(" + strings.Join(slices.Sorted(maps.Keys(parts[top])), "|") + ")$"
		}
		all = append(all, &failure{pkg.pkg, pattern, again, took[top]})
	}
	if all == nil {
		all = []*failure{{pkg.pkg, "", again, pkg.took}}
	}
	return all
}
