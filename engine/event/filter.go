package event

import (
	"errors"
	"slices"
	"strings"

	"kiste/fault"
)

// A Filter chooses events, as Docker's --filter does: those that fit one value
// of each key; of labels, all. The zero value chooses all.
type Filter map[string][]string

// Keys are those that a Filter can have.
func Keys() []string {
	return []string{"config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service", "type", "volume"}
}

// Add takes KEY=VALUE. A key that there is not is fault.Invalid.
func (f Filter) Add(text string) error {
	key, value, ok := strings.Cut(text, "=")
	key = strings.ToLower(strings.TrimSpace(key))
	bad := func(why string) error {
		return &fault.Error{Op: "use filter", On: text, Kind: fault.Invalid, Err: errors.New(why), Hint: "KEY=VALUE, with one of " + strings.Join(Keys(), ", ")}
	}
	switch {
	case !ok:
		return bad("it has no value")
	case !slices.Contains(Keys(), key):
		return bad("invalid filter '" + key + "'")
	}
	f[key] = append(f[key], strings.TrimSpace(value))
	return nil
}

// Fits reports whether e is chosen.
func (f Filter) Fits(e Event) bool {
	for key, values := range f {
		if key == "label" {
			if slices.ContainsFunc(values, func(v string) bool { return !hasLabel(e, v) }) {
				return false
			}
		} else if !slices.ContainsFunc(values, func(v string) bool { return fits(e, key, v) }) {
			return false
		}
	}
	return true
}

// fits is the meaning of each key but label: daemon/events/filter.go of moby.
func fits(e Event, key, value string) bool {
	switch key {
	case "type":
		return e.Type == value
	case "scope":
		return e.Scope == value
	case "event":
		// The command or the health comes behind a colon.
		return e.Action == value || strings.HasPrefix(e.Action, value+":") && isOpenEnded(value)
	case "image":
		name := e.Actor.Attributes["image"]
		if e.Type == Image {
			name = e.Actor.Attributes["name"]
		}
		return slices.Contains([]string{e.Actor.ID, name, withoutTag(e.Actor.ID), withoutTag(name)}, value)
	}
	// The other keys are types: by their beginning, the ID or the name.
	return e.Type == key && (strings.HasPrefix(e.Actor.ID, value) || strings.HasPrefix(e.Actor.Attributes["name"], value))
}

func isOpenEnded(action string) bool {
	return slices.Contains([]string{"health_status", "exec_create", "exec_start"}, action)
}

func hasLabel(e Event, label string) bool {
	key, want, exact := strings.Cut(label, "=")
	have, ok := e.Actor.Attributes[key]
	return ok && (!exact || have == want)
}

// withoutTag is an image's name without its tag.
func withoutTag(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
