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

// tweakCapabilities applies --cap-add and --cap-drop to the default set.
func tweakCapabilities(add, drop []string, privileged bool) ([]string, error) {
	if privileged {
		return allCapabilities(), nil
	}
	add, err := capabilityNames("--cap-add", add)
	if err != nil {
		return nil, err
	}
	drop, err = capabilityNames("--cap-drop", drop)
	if err != nil {
		return nil, err
	}
	base := privilege.DefaultCaps.Names()
	switch {
	case slices.Contains(add, "ALL"):
		base, add = allCapabilities(), nil
	case slices.Contains(drop, "ALL"):
		base = nil
	}
	base = slices.DeleteFunc(base, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if !slices.Contains(base, c) {
			base = append(base, c)
		}
	}
	return base, nil
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
