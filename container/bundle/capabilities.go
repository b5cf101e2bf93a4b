package bundle

import (
	"fmt"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/kernel/privilege"
)

// allCapabilities are those of Linux 5.9 and later, whatever the running
// kernel's are: a newer one is added by name.
func allCapabilities() []string { return privilege.Caps(1<<41 - 1).Names() }

// tweakCapabilities applies --cap-add and --cap-drop to the default set, of
// what there is to have.
func tweakCapabilities(w *Wishes, have []string) ([]string, error) {
	if w.Privileged {
		return have, nil
	}
	add, err := capabilityNames("--cap-add", w.CapAdd)
	if err != nil {
		return nil, err
	}
	drop, err := capabilityNames("--cap-drop", w.CapDrop)
	if err != nil {
		return nil, err
	}
	base := privilege.DefaultCaps.Names()
	switch {
	case slices.Contains(add, "ALL"):
		base, add = slices.Clone(have), nil
	case slices.Contains(drop, "ALL"):
		base = nil
	}
	base = slices.DeleteFunc(base, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if !slices.Contains(have, c) {
			return nil, badOption("--cap-add", fault.Unsupported,
				fmt.Errorf("capability not supported by your kernel or not available in the current environment: %q", c))
		}
		if !slices.Contains(base, c) {
			base = append(base, c)
		}
	}
	return base, nil
}

// capabilities are what the container could have: in a user namespace all of
// them, since they are worth nothing outside.
func (c *compiler) capabilities() []string {
	if c.userNS || c.host.Capabilities == nil {
		return allCapabilities()
	}
	return c.host.Capabilities
}

// capabilityNames gives names their form: "net_admin" is "CAP_NET_ADMIN".
func capabilityNames(option string, names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		c := strings.ToUpper(n)
		if c != "ALL" && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if c == "CAP_ALL" {
			c = "ALL"
		}
		if c != "ALL" && !slices.Contains(allCapabilities(), c) {
			return nil, badOption(option, fault.Invalid, fmt.Errorf("unknown capability: %q", c))
		}
		out = append(out, c)
	}
	return out, nil
}
