package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/lifecycle"
	"kiste/fault"
)

func mountsVerb() *verb {
	return &verb{
		name: "mounts", args: "add|remove CONTAINER FILE", min: 3, max: 3,
		short: "add mounts to a running container, or remove some",
		long: `FILE has "mounts" as in config.json, or that list alone. What is removed is found
by its destination.`,
		examples: []string{"mounts add web more.json"},
		run: func(s *session, args []string) error {
			do := map[string]func(*lifecycle.Container, []specs.Mount) error{
				"add": (*lifecycle.Container).AddMounts, "remove": (*lifecycle.Container).RemoveMounts,
			}[args[0]]
			if do == nil {
				return &fault.Error{Op: "change mounts", On: args[0], Kind: fault.Invalid, Err: errors.New("want add or remove")}
			}
			c, err := s.containers().Load(args[1])
			if err != nil {
				return err
			}
			mounts, err := readMounts(args[2])
			if err != nil {
				return err
			}
			return do(c, mounts)
		},
	}
}

// maxMounts bounds what is read.
const maxMounts = 1 << 20

func readMounts(file string) ([]specs.Mount, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &fault.Error{Op: "read mounts", On: file, Err: err}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMounts+1))
	if err == nil && len(text) > maxMounts {
		err = fmt.Errorf("more than %d bytes are too many", maxMounts)
	}
	var mounts []specs.Mount
	if err == nil {
		mounts, err = parseMounts(text)
	}
	if err != nil {
		return nil, &fault.Error{Op: "read mounts", On: file, Kind: fault.Invalid, Err: err}
	}
	return mounts, nil
}

// parseMounts reads {"mounts": [...]}, or the list alone.
func parseMounts(text []byte) ([]specs.Mount, error) {
	var list []specs.Mount
	if json.Unmarshal(text, &list) == nil {
		return list, nil
	}
	var object struct {
		Mounts []specs.Mount `json:"mounts"`
	}
	err := json.Unmarshal(text, &object)
	return object.Mounts, err
}
