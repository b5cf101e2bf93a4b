package cli

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"kiste/engine"
	"kiste/image/catalog"
	"kiste/image/reference"
)

// A test reports whether a container is to be listed.
type test = func(c *engine.Container) bool

// containerFilters are Docker's: daemon/list.go of moby.
var containerFilters = []filter[*lookup, *engine.Container]{
	{"ancestor", "IMAGE", ancestorFilter},
	{"before", "CONTAINER", beforeFilter},
	{"exited", "CODE", exitedFilter},
	{"expose", "PORT[/PROTOCOL]", exposeFilter},
	{"health", "starting|healthy|unhealthy|none", healthFilter},
	{"id", "ID", idFilter},
	{"is-task", "true|false", taskFilter},
	{"label", "KEY[=VALUE]", labelFilter},
	{"name", "NAME", nameFilter},
	{"network", "NAME", networkFilter},
	{"publish", "PORT[/PROTOCOL]", publishFilter},
	{"since", "CONTAINER", sinceFilter},
	{"status", "created|restarting|running|removing|paused|exited|dead", statusFilter},
	{"volume", "NAME|PATH", volumeFilter},
}

// A lookup is what filters need to look at.
type lookup struct {
	e     *engine.Engine
	match func(expression, text string) bool // regular expressions; nil: there are none here
}

// errRegexp says that a filter has a regular expression and this is kiste.
var errRegexp = errors.New("it needs regular expressions")

var errNoSuchValue = errors.New("it cannot have this value")

// oneOfThese is an error for any other value.
func oneOfThese(value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	return errNoSuchValue
}

func statusFilter(_ *lookup, v string) (test, error) {
	return func(c *engine.Container) bool { return c.State.Status == v },
		oneOfThese(v, "created", "restarting", "running", "removing", "paused", "exited", "dead")
}

func exitedFilter(_ *lookup, v string) (test, error) {
	code, err := strconv.Atoi(v)
	return func(c *engine.Container) bool { return c.State.Status == "exited" && c.State.ExitCode == code }, err
}

func healthFilter(_ *lookup, v string) (test, error) {
	return func(c *engine.Container) bool {
		if c.State.Health == nil {
			return v == "none"
		}
		return c.State.Health.Status == v
	}, oneOfThese(v, "starting", "healthy", "unhealthy", "none")
}

// taskFilter is about tasks of Swarm, and there are none.
func taskFilter(_ *lookup, v string) (test, error) {
	is, err := filterBool("is-task", v)
	return func(*engine.Container) bool { return !is }, err
}

func labelFilter(_ *lookup, v string) (test, error) {
	return func(c *engine.Container) bool { return hasLabel(c.Result.Labels, v) }, nil
}

func beforeFilter(l *lookup, v string) (test, error) {
	than, err := l.e.Find(v)
	return func(c *engine.Container) bool { return c.Created.Before(than.Created) }, err
}

func sinceFilter(l *lookup, v string) (test, error) {
	than, err := l.e.Find(v)
	return func(c *engine.Container) bool { return c.Created.After(than.Created) }, err
}

func idFilter(_ *lookup, v string) (test, error) {
	return func(c *engine.Container) bool { return strings.HasPrefix(c.ID, v) }, nil
}

func nameFilter(l *lookup, v string) (test, error) {
	fits, err := l.matcher(v)
	return func(c *engine.Container) bool { return fits(c.Name) || fits("/"+c.Name) }, err
}

// matcher is a regular expression. One that is text between ^ and $, if that,
// is compared by kiste itself.
func (l *lookup) matcher(expression string) (func(text string) bool, error) {
	part, atStart := strings.CutPrefix(expression, "^")
	part, atEnd := strings.CutSuffix(part, "$")
	if !strings.ContainsAny(part, `\.+*?()|[]{}^$`) {
		return func(text string) bool {
			switch {
			case atStart && atEnd:
				return text == part
			case atStart:
				return strings.HasPrefix(text, part)
			case atEnd:
				return strings.HasSuffix(text, part)
			}
			return strings.Contains(text, part)
		}, nil
	}
	if l.match == nil {
		return nil, errRegexp
	}
	return func(text string) bool { return text == expression || l.match(expression, text) }, nil
}

// ancestorFilter finds containers of an image, and of those that stand on its
// layers.
func ancestorFilter(l *lookup, v string) (test, error) {
	ref, refErr := reference.Parse(v)
	image, err := catalog.Get(l.e.Store, v)
	here := err == nil
	return func(c *engine.Container) bool {
		if here && (c.ImageID == image.ID || len(image.Layers) > 0 && len(c.Layers) > len(image.Layers) && slices.Equal(c.Layers[:len(image.Layers)], image.Layers)) {
			return true
		}
		if digits := strings.TrimPrefix(v, "sha256:"); len(digits) >= 4 && strings.HasPrefix(strings.TrimPrefix(c.ImageID, "sha256:"), digits) {
			return true
		}
		have, err := reference.Parse(c.ImageName)
		return c.ImageName == v || refErr == nil && err == nil && ref == have
	}, nil
}

func networkFilter(_ *lookup, v string) (test, error) {
	return func(c *engine.Container) bool {
		for name, n := range c.JSON().NetworkSettings.Networks {
			if name == v || n.NetworkID != "" && strings.HasPrefix(n.NetworkID, v) {
				return true
			}
		}
		return false
	}, nil
}

func volumeFilter(_ *lookup, v string) (test, error) {
	return func(c *engine.Container) bool {
		for _, m := range c.JSON().Mounts {
			if m.Destination == v || m.Name == v || m.Name == "" && m.Source == v {
				return true
			}
		}
		return false
	}, nil
}

func publishFilter(_ *lookup, v string) (test, error) {
	has, err := ports(v)
	return func(c *engine.Container) bool { return anyKey(c.JSON().HostConfig.PortBindings, has) }, err
}

func exposeFilter(_ *lookup, v string) (test, error) {
	has, err := ports(v)
	return func(c *engine.Container) bool { return anyKey(c.JSON().Config.ExposedPorts, has) }, err
}

func anyKey[V any](m map[string]V, has func(string) bool) bool {
	for key := range m {
		if has(key) {
			return true
		}
	}
	return false
}

// ports reads PORT[-PORT][/PROTOCOL], the protocol being tcp, and reports
// whether a port such as "80/tcp" is among them.
func ports(v string) (func(port string) bool, error) {
	numbers, protocol, ok := strings.Cut(v, "/")
	if !ok {
		protocol = "tcp"
	}
	low, high, isRange := strings.Cut(numbers, "-")
	if !isRange {
		high = low
	}
	from, err := strconv.ParseUint(low, 10, 16)
	to, bad := strconv.ParseUint(high, 10, 16)
	if err != nil || bad != nil || from > to {
		return nil, errNoSuchValue
	}
	return func(port string) bool {
		number, of, _ := strings.Cut(port, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		return err == nil && of == protocol && from <= n && n <= to
	}, nil
}
