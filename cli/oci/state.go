package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/container/lifecycle"
	"kiste/fault"
)

// A containerState is what state and list tell of a container: runc's fields.
type containerState struct {
	Version     string               `json:"ociVersion"`
	ID          string               `json:"id"`
	PID         int                  `json:"pid"`
	Status      specs.ContainerState `json:"status"`
	Bundle      string               `json:"bundle"`
	Rootfs      string               `json:"rootfs"`
	Created     time.Time            `json:"created"`
	Annotations map[string]string    `json:"annotations,omitempty"`
	Owner       string               `json:"owner"`
}

func stateOf(c *lifecycle.Container) containerState {
	s := c.State()
	return containerState{Version: s.Version, ID: s.ID, PID: s.Pid, Status: s.Status, Bundle: s.Bundle, Rootfs: c.Rootfs(),
		Created: c.Created(), Annotations: s.Annotations}
}

func stateVerb() *verb {
	return &verb{
		name: "state", args: oneContainer, min: 1, max: 1,
		short: "print what a container does, as JSON",
		run: func(s *session, args []string) error {
			c, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			b, err := json.MarshalIndent(stateOf(c), "", "  ")
			if err != nil {
				return err
			}
			return s.print(string(b) + "\n")
		},
	}
}

func listVerb() *verb {
	var format string
	var quiet bool
	return &verb{
		name: "list", short: "list the containers",
		options: []option.Row{
			{"-f, --format", "table|json", "of what is printed", formatVar(&format)},
			{"-q, --quiet", "", "ids alone", option.Bool(&quiet)},
		},
		run: func(s *session, _ []string) error {
			all, err := s.states()
			switch {
			case err != nil:
				return err
			case quiet:
				return s.print(ids(all))
			case format == "json":
				b, err := json.Marshal(all)
				if err != nil {
					return err
				}
				return s.print(string(b) + "\n")
			}
			return s.print(stateTable(all))
		},
	}
}

func formatVar(p *string) option.Var {
	*p = "table"
	return func(s string) error {
		if s != "table" && s != "json" {
			return fmt.Errorf("invalid format option: want table or json")
		}
		*p = s
		return nil
	}
}

// states are those of all containers. A directory that was asked for and is
// not there is an error.
func (s *session) states() ([]containerState, error) {
	if s.root != "" {
		if _, err := os.Stat(s.root); err != nil {
			return nil, &fault.Error{Op: "list containers", On: s.root, Err: err}
		}
	}
	list, bad, err := s.containers().List()
	if err != nil {
		return nil, err
	}
	for _, err := range bad {
		s.log.warn("cannot " + err.Error())
	}
	owners := map[uint32]string{}
	all := make([]containerState, len(list))
	for i, c := range list {
		owner, known := owners[c.Owner()]
		if !known {
			owner = ownerName(c.Owner())
			owners[c.Owner()] = owner
		}
		all[i] = stateOf(c)
		all[i].Owner = owner
	}
	return all, nil
}

// ownerName is the user's name, or # and the id.
func ownerName(uid uint32) string {
	if name := userName(uid); name != "" {
		return name
	}
	return "#" + strconv.FormatUint(uint64(uid), 10)
}

func ids(all []containerState) string {
	var b strings.Builder
	for _, c := range all {
		b.WriteString(c.ID + "\n")
	}
	return b.String()
}

func stateTable(all []containerState) string {
	rows := [][]string{{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}}
	for _, c := range all {
		rows = append(rows, []string{c.ID, strconv.Itoa(c.PID), string(c.Status), c.Bundle, c.Created.Format(time.RFC3339Nano), c.Owner})
	}
	return columns(rows)
}

// columns sets rows in columns as runc does: three spaces between, and twelve
// letters at least.
func columns(rows [][]string) string {
	widths := make([]int, len(rows[0])-1)
	for _, r := range rows {
		for i := range widths {
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i])+3, 12)
		}
	}
	var b strings.Builder
	for _, r := range rows {
		for i, w := range widths {
			fmt.Fprintf(&b, "%-*s", w, r[i])
		}
		b.WriteString(r[len(widths)] + "\n")
	}
	return b.String()
}
