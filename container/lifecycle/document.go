package lifecycle

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/resctrl"
	"kiste/kernel/cgroup/systemd"
	"kiste/store"
)

// Schema is the version of state.json.
const Schema = 1

// What lies in a container's directory.
const (
	stateFile  = "state.json"
	configFile = "config.json" // the bundle's, as it was at the creation
	startFIFO  = sys.StartFIFO
	reportFIFO = sys.ReportFIFO
	goAhead    = sys.GoAhead // where a start wants nothing but its byte
)

// A document is state.json. It is written before anything is made, so that
// whoever finds the rest of a creation that was cut short knows what to remove,
// and again when there is a process.
type document struct {
	Schema      int               `json:"schema"`
	OCIVersion  string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Rootfs      string            `json:"rootfs"`
	Mount       uint64            `json:"mount,omitempty"` // that stays at Rootfs on the host; 0: none
	Created     time.Time         `json:"created"`
	Owner       uint32            `json:"owner"` // the user id of who created it
	PID         int               `json:"pid"`   // 0: there is no process yet
	Birth       uint64            `json:"birth"` // start time of the process, in clock ticks since the boot
	Cgroup      string            `json:"cgroup,omitempty"`
	Hierarchies cgroup.Layout     `json:"hierarchies"`     // in which it is
	Unit        *systemd.Unit     `json:"unit,omitempty"`  // that systemd has made; nil: none
	Class       *resctrl.Class    `json:"class,omitempty"` // of cache and memory bandwidth; nil: none
	Program     string            `json:"program"`         // what the process is to execute
	Keyring     string            `json:"keyring,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Hooks       *specs.Hooks      `json:"hooks,omitempty"` // those that come after the creation
}

// check refuses what this program cannot have written.
func (d *document) check(id string) error {
	switch {
	case d.Schema > Schema:
		return &fault.Error{Op: "read container", On: id, Kind: fault.Unsupported, Err: fmt.Errorf("it has schema %d and this program knows %d", d.Schema, Schema)}
	case d.Schema < 1 || d.ID != id || d.PID < 0:
		return &fault.Error{Op: "read container", On: id, Kind: fault.Invalid, Err: errors.New("its document is damaged"), Hint: "remove it: delete --force " + id}
	}
	return nil
}

func (d *document) process() process.Identity { return process.Identity{PID: d.PID, Start: d.Birth} }

// A Container is one that Create or Run has made.
type Container struct {
	root Root
	dir  string
	doc  document

	linux atomic.Pointer[specs.Linux] // of the spec, once it has been read
}

func (c *Container) file(name string) string { return filepath.Join(c.dir, name) }

// write replaces the document. It lies in memory: there is no disk to wait for.
func (c *Container) write() error {
	b, err := store.Encode(&c.doc)
	if err != nil {
		return err
	}
	return store.WriteBriefly(c.file(stateFile), b)
}
