package oci

import (
	"fmt"

	"kiste/cli/option"
	"kiste/fault"
)

// A verb is what the command line can be asked to do.
type verb struct {
	name     string
	args     string // "CONTAINER [SIGNAL]", for the usage line
	short    string // one line, without a full stop
	long     string // paragraphs; indented lines stay as they are
	options  []option.Row
	min, max int  // numbers of arguments; max -1: any
	rest     bool // options end at the first argument
	raw      bool // no option is taken out
	hidden   bool // for programs: no help text lists it
	complete string
	examples []string // without the program's name
	run      func(s *session, args []string) error
}

// A row is a verb by name; its constructor is called when it is needed. A row
// without a constructor is a heading.
type row struct {
	name string
	new  func() *verb
}

// table is every verb, in the order in which help lists them.
func table() []row {
	return []row{
		{"Containers", nil},
		{"create", createVerb},
		{"start", startVerb},
		{"run", runVerb},
		{"exec", execVerb},
		{"kill", killVerb},
		{"delete", deleteVerb},
		{"pause", pauseVerb},
		{"resume", resumeVerb},
		{"update", updateVerb},
		{"mounts", mountsVerb},
		{"checkpoint", checkpointVerb},
		{"restore", restoreVerb},

		{"What they are and do", nil},
		{"list", listVerb},
		{"state", stateVerb},
		{"ps", psVerb},
		{"events", eventsVerb},

		{"This program", nil},
		{"spec", specVerb},
		{"features", featuresVerb},
		{"help", helpVerb},
		{"completion", completionVerb},
		{"man", manVerb},
		{"__complete", completeVerb},
	}
}

// find is the verb called name, or nil.
func find(name string) *verb {
	if name == "h" {
		name = "help" // runc's
	}
	for _, r := range table() {
		if r.new != nil && r.name == name {
			return r.new()
		}
	}
	return nil
}

// verbs calls visit for each, with the heading that it is the first below.
func verbs(visit func(heading string, v *verb)) {
	heading := ""
	for _, r := range table() {
		if r.new == nil {
			heading = r.name
			continue
		}
		if v := r.new(); !v.hidden {
			visit(heading, v)
			heading = ""
		}
	}
}

func unknown(name string) error {
	var known []string
	verbs(func(_ string, v *verb) { known = append(known, v.name) })
	err := &fault.Error{Op: "find verb", On: name, Kind: fault.Invalid, Err: fmt.Errorf("there is no such verb"), Hint: program + " --help lists them"}
	if near := option.Nearest(name, known); near != "" {
		err.Hint = "did you mean " + near + "? " + err.Hint
	}
	return err
}

// oneContainer is the id where a verb takes it and nothing else.
const oneContainer = "CONTAINER"
