package bundle

import (
	"errors"
	"strconv"
	"strings"
)

// ParseRestart reads what --restart says: no, always, unless-stopped, or
// on-failure[:TIMES].
func ParseRestart(s string) (Restart, error) {
	name, times, has := strings.Cut(s, ":")
	r := Restart{Name: name}
	switch name {
	case "", "no", "always", "unless-stopped":
		if has {
			return r, errors.New("maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure":
		if !has {
			return r, nil
		}
		n, err := strconv.Atoi(times)
		if err != nil {
			return r, errors.New("maximum retry count must be an integer")
		}
		if n < 0 {
			return r, errors.New("maximum retry count cannot be negative")
		}
		r.Max = n
	default:
		return r, errors.New("unknown policy '" + name + "'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'")
	}
	return r, nil
}

// Again reports whether a container that has ended with code, and was started
// anew so many times, is started once more.
func (r Restart) Again(code, times int) bool {
	switch r.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (r.Max == 0 || times < r.Max)
	}
	return false
}

// AtBoot reports whether a container is started after a boot of the host.
// Stopped: somebody had stopped it; ran: it ran when the host went down.
func (r Restart) AtBoot(stopped, ran bool) bool {
	switch r.Name {
	case "always":
		return true
	case "unless-stopped":
		return !stopped
	case "on-failure":
		return ran
	}
	return false
}

// Set reports whether there is a policy.
func (r Restart) Set() bool { return r.Name != "" && r.Name != "no" }
