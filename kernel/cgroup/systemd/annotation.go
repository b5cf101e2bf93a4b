package systemd

import (
	"errors"
	"maps"
	"math"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/internal/bus"
)

const annotationPrefix = "org.systemd.property."

// own are the properties that no annotation sets: those that make the unit the
// container's, and those by which the end of a container would switch off or
// reboot the host (CVE-2024-3154).
var own = []struct{ name, why string }{
	{"Slice", "linux.cgroupsPath says it"}, {"PIDs", "the container's process is in it"}, {"PIDFDs", "the container's process is in it"}, {"Delegate", "the runtime writes its limits"},
	{"SuccessAction", "it acts on the whole host"}, {"FailureAction", "it acts on the whole host"}, {"JobTimeoutAction", "it acts on the whole host"},
	{"StartLimitAction", "it acts on the whole host"}, {"RebootArgument", "it acts on the whole host"}, {"JobTimeoutRebootArgument", "it acts on the whole host"},
}

// Annotations are the properties that annotations "org.systemd.property.NAME"
// ask for, sorted by name. Values are GLib's text of a GVariant; a NAME that ends in Sec,
// with a number, is systemd's in microseconds, NAME-USec. A name is made of
// letters. Errors are fault.Invalid, and fault.Denied for what would reach
// beyond the unit. As in runc, which denies nothing.
func Annotations(annotations map[string]string) ([]Property, error) {
	var out []Property
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, annotationPrefix)
		if !ok {
			continue
		}
		bad := func(kind fault.Kind, err error) error {
			return &fault.Error{Op: "use annotation", On: key, Kind: kind, Err: err}
		}
		if err := checkName(name); err != nil {
			return nil, bad(fault.Invalid, err)
		}
		if why := notYours(name); why != "" {
			return nil, bad(fault.Denied, errors.New(why))
		}
		value, err := bus.Parse(annotations[key])
		if err == nil {
			name, value, err = micros(name, value)
		}
		if err != nil {
			return nil, bad(fault.Invalid, err)
		}
		out = append(out, Property{name, value})
	}
	return out, nil
}

// notYours says why no annotation sets the property; empty: it may.
func notYours(name string) string {
	for _, o := range own {
		if o.name == name {
			return o.why
		}
	}
	return ""
}

func checkName(name string) error {
	switch {
	case len(name) < 3:
		return errors.New("a property's name is longer")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != "":
		return errors.New("a property's name is made of letters")
	}
	return nil
}

// micros is a property in seconds as systemd has it.
func micros(name string, v bus.Value) (string, bus.Value, error) {
	base, ok := strings.CutSuffix(name, "Sec")
	if !ok || base == "" || base[len(base)-1] < 'a' || base[len(base)-1] > 'z' {
		return name, v, nil
	}
	n := v.Number
	switch v.Type {
	case "d":
		f := math.Float64frombits(n) * second
		if math.IsNaN(f) || f < 0 || f >= 1<<63 {
			return "", v, errors.New("it is out of range")
		}
		return base + "USec", bus.Uint64(uint64(f)), nil
	case "n", "i", "x":
		if v.Signed() < 0 {
			return "", v, errors.New("it is out of range")
		}
	case "y", "q", "u", "t":
	default:
		return "", v, errors.New("a time is a number of seconds")
	}
	if n > math.MaxUint64/second {
		return "", v, errors.New("it is out of range")
	}
	return base + "USec", bus.Uint64(n * second), nil
}
