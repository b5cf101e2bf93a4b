// Package lifecycle keeps the states of OCI containers, on disk and in the
// kernel.
//
//	takes    a directory of state, an id, a bundle
//	gives    a Container: start, state, kill, delete
//	touches  all that a plan names; files below the directory of state
//	state    ROOT/ID/state.json, config.json, two FIFOs, and two links: the process, and what a start wants (internal/sys/early.go)
//
// No process of ours stays: what a container does now is asked of the kernel
// each time, by its process and that one's start time, by its freezer, and by
// its FIFOs.
//
//	            Create              Start             its process ends
//	(nothing) ─────────▶ created ─────────▶ running ──────────────────▶ stopped
//	    │                   │    Run         ▲    │ Pause                  │
//	    ├───────────────────┼────────────────┤    ▼                        │
//	    ▲                   │        Resume  └─ paused                     │
//	    │                   │                     │                        │
//	    └───────────────────┴─────── Delete ──────┴────────────────────────┘
//
// Delete of a running or paused container is a conflict unless it is forced:
// then it is killed first. A creation that was cut short leaves a container
// that is stopped; Delete removes it. While Create, Run, Start or Delete is at
// work it holds the flock of the container's directory.
//
// Root, or in a user namespace. Safe for concurrent use, also by several
// processes.
package lifecycle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kiste/container/plan"
	"kiste/container/process"
	"kiste/fault"
	"kiste/store"
)

// A Root is where the state of containers is kept.
type Root struct {
	Dir string

	// Warn hears what of a spec has no effect, and of hooks that failed after
	// the start, or after the end. Nil: nobody does.
	Warn func(string)

	// Reached hears of each point of the work at which something is done, and
	// Prepare of each plan before it is carried out. Tests stop the work
	// there. Nil: nobody hears.
	Reached func(point string)
	Prepare func(*plan.Plan, *process.Options)
}

func (r Root) warn(sentences ...string) {
	for _, s := range sentences {
		if r.Warn != nil {
			r.Warn(s)
		}
	}
}

func (r Root) reached(point string) {
	if r.Reached != nil {
		r.Reached(point)
	}
}

func (r Root) carryOut(p *plan.Plan, o process.Options) (*process.Process, error) {
	if r.Prepare != nil {
		r.Prepare(p, &o)
	}
	return process.Start(p, o)
}

// maxID is the longest id, as in runc.
const maxID = 1024

// checkID refuses what is no id in runc.
func checkID(id string) error {
	word := strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-") == ""
	if id == "" || id == "." || id == ".." || len(id) > maxID || !word {
		return &fault.Error{Op: "take container ID", On: id, Kind: fault.Invalid, Err: errors.New("invalid container ID format")}
	}
	return nil
}

func (r Root) dir(id string) string { return filepath.Join(r.Dir, id) }

// Load finds the container id. It is fault.NotFound where there is none.
func (r Root) Load(id string) (*Container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &Container{root: r, dir: r.dir(id)}
	err := store.ReadJSON(c.file(stateFile), &c.doc)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, &fault.Error{Op: "find container", On: id, Kind: fault.NotFound, Err: errors.New("container does not exist")}
	case err != nil:
		return nil, &fault.Error{Op: "read container", On: id, Err: err}
	}
	if c.readBorn() != nil {
		return c, damaged(id)
	}
	return c, c.doc.check(id)
}

// List gives all containers, sorted by id. Those that cannot be read are told
// of in bad.
func (r Root) List() (all []*Container, bad []error, err error) {
	entries, err := os.ReadDir(r.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &fault.Error{Op: "list containers", On: r.Dir, Err: err}
	}
	for _, e := range entries {
		if !e.IsDir() || checkID(e.Name()) != nil {
			continue
		}
		c, err := r.Load(e.Name())
		switch {
		case errors.Is(err, fault.NotFound): // it is being made, or removed
		case err != nil:
			bad = append(bad, err)
		default:
			all = append(all, c)
		}
	}
	slices.SortFunc(all, func(a, b *Container) int { return strings.Compare(a.doc.ID, b.doc.ID) })
	return all, bad, nil
}
