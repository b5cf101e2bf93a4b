package oci

import (
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/container/lifecycle"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/cgroup/resctrl"
	"kiste/kernel/network"
)

func eventsVerb() *verb {
	interval, once := 5*time.Second, false
	return &verb{
		name: "events", args: oneContainer, min: 1, max: 1,
		short: "tell what a container uses, and when it lacked memory",
		long: `Each line is a JSON object. Those of the type "stats" come at every interval,
"oom" when the kernel has killed a process for want of memory. It ends with the
container.`,
		options: []option.Row{
			{"--interval", "DURATION", "between statistics: 5s, 1m30s (5s)", durationVar(&interval)},
			{"--stats", "", "print statistics once", option.Bool(&once)},
		},
		run: func(s *session, args []string) error {
			c, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			if c.Status() == specs.StateStopped {
				return &fault.Error{Op: "watch container", On: c.ID(), Kind: fault.Conflict, Err: errors.New("container with id " + c.ID() + " is not running")}
			}
			w := &watch{s: s, c: c}
			if once {
				return w.stats()
			}
			return w.follow(interval)
		},
	}
}

func durationVar(p *time.Duration) option.Var {
	return func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			return errors.New("duration interval must be greater than 0")
		}
		*p = d
		return nil
	}
}

// An event is a line of events: runc's form.
type event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// statistics are the data of a "stats" event.
type statistics struct {
	cgroup.Stats
	IntelRDT          resctrl.Stats      `json:"intel_rdt"`
	NetworkInterfaces []network.Counters `json:"network_interfaces"` // of which runc has none
}

// A watch writes the events of a container; several goroutines may do so.
type watch struct {
	s  *session
	c  *lifecycle.Container
	mu sync.Mutex
}

func (w *watch) write(e event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return w.s.print(string(b) + "\n")
}

func (w *watch) stats() error {
	now, err := w.c.Stats()
	if err != nil {
		return err
	}
	data := statistics{Stats: now}
	if data.IntelRDT, err = w.c.ClassStats(); err != nil {
		return err
	}
	if data.NetworkInterfaces, err = network.CountersOf(w.c.PID()); err != nil {
		return err
	}
	return w.write(event{Type: "stats", ID: w.c.ID(), Data: data})
}

// follow writes events until the container has ended, or nobody reads them.
func (w *watch) follow(interval time.Duration) error {
	sys.Parallel()
	failed, ended := make(chan error, 2), make(chan error, 1)
	go func() {
		for range time.Tick(interval) {
			if err := w.stats(); err != nil && !errors.Is(err, fault.NotFound) {
				failed <- err
				return
			}
		}
	}()
	go func() {
		ended <- w.c.OnOOM(func() {
			if err := w.write(event{Type: "oom", ID: w.c.ID()}); err != nil {
				failed <- err
			}
		})
	}()
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	}
}
