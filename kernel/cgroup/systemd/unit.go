package systemd

import (
	"errors"
	"path"
	"strings"

	"kiste/fault"
)

// A Unit is a scope and where it lies.
type Unit struct {
	Name  string `json:"name"`           // "docker-abc.scope"
	Slice string `json:"slice"`          // "system.slice", "a-b.slice"
	User  bool   `json:"user,omitempty"` // of the user's own instance
}

// ParseUnit reads a spec's cgroupsPath for systemd, "SLICE:PREFIX:NAME". No
// path is that of a scope for the container id. No slice is system.slice, or
// user.slice of the user's instance. Errors are fault.Invalid.
func ParseUnit(cgroupsPath, id string, user bool) (Unit, error) {
	slice, prefix, name := "", "kiste", id
	if cgroupsPath != "" {
		part := strings.Split(cgroupsPath, ":")
		if len(part) != 3 {
			return Unit{}, &fault.Error{Op: "use linux.cgroupsPath", On: cgroupsPath, Kind: fault.Invalid,
				Err: errors.New(`expected cgroupsPath to be of format "slice:prefix:name" for systemd cgroups`)}
		}
		slice, prefix, name = part[0], part[1], part[2]
	}
	u := Unit{Name: prefix + "-" + name + ".scope", Slice: slice, User: user}
	if slice == "" {
		u.Slice = "system.slice"
		if user {
			u.Slice = "user.slice"
		}
	}
	if _, err := slicePath(u.Slice); err != nil {
		return Unit{}, err
	}
	if name == "" || strings.HasSuffix(name, ".slice") || len(u.Name) > 255 || strings.Trim(u.Name, unitLetters) != "" {
		return Unit{}, &fault.Error{Op: "name scope", On: u.Name, Kind: fault.Invalid, Err: errors.New("it is no name of a scope")}
	}
	return u, nil
}

// unitLetters are what names of units are made of: systemd.unit(5).
const unitLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"

// Group is the cgroup of the unit below root, the cgroup of the manager ("/"
// for the system's).
func (u Unit) Group(root string) (string, error) {
	slice, err := slicePath(u.Slice)
	return path.Join("/", root, slice, u.Name), err
}

// slicePath is where a slice lies: "a-b.slice" is at /a.slice/a-b.slice, and
// "-.slice" is the root.
func slicePath(slice string) (string, error) {
	bad := func() (string, error) {
		return "", &fault.Error{Op: "use slice", On: slice, Kind: fault.Invalid, Err: errors.New("invalid slice name")}
	}
	name, ok := strings.CutSuffix(slice, ".slice")
	switch {
	case !ok || len(slice) > 255 || strings.Trim(name, unitLetters) != "":
		return bad()
	case name == "-":
		return "/", nil
	}
	at, prefix := "", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return bad()
		}
		prefix += part
		at += "/" + prefix + ".slice"
		prefix += "-"
	}
	return at, nil
}
