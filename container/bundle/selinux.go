package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"kiste/fault"
	"kiste/kernel/privilege/selinux"
)

// SELinux is what a host with SELinux has for a container.
type SELinux struct {
	selinux.Labels
	Level  string   // the container's own; see GivenLevel
	Joined []string // the labels of the processes of containers whose processes or IPC it shares; empty ones: they have none
}

const labelOption = "--security-opt label"

// GivenLevel is the level that the user gives a container: no other is to be found for it.
func (s Security) GivenLevel() string {
	for _, label := range slices.Backward(s.Label) {
		if level, ok := strings.CutPrefix(label, "level:"); ok {
			return level
		}
	}
	return ""
}

// selinux labels the container's processes and mounts, as Podman does.
func (c *compiler) selinux() error {
	if c.host.SELinux == nil {
		for _, label := range c.w.Security.Label {
			if label != "disable" {
				c.Warnings = append(c.Warnings, fmt.Sprintf("--security-opt label=%s has no effect: no SELinux labels are set", label))
			}
		}
		return nil
	}
	process, mount, err := c.host.SELinux.labels(c.labelOptions(), c.System)
	if err != nil {
		return badOption(labelOption, fault.Invalid, err)
	}
	c.Spec.Process.SelinuxLabel, c.Spec.Linux.MountLabel = process, mount
	if slices.Contains(c.w.Security.Label, nestedLabels) {
		all := map[string]string{selinux.ContextType: "rootcontext"}
		maps.Copy(all, c.Spec.Annotations)
		c.Spec.Annotations = all
	}
	from := origin(len(c.w.Security.Label) > 0, labelOption)
	c.Origin["process.selinuxLabel"], c.Origin["linux.mountLabel"] = from, from
	return nil
}

const (
	noLabels     = "disable"
	nestedLabels = "nested"
)

// labelOptions are the user's, and what follows from walls that the container does not have.
func (c *compiler) labelOptions() []string {
	if c.w.Privileged {
		return []string{noLabels}
	}
	options := slices.Clone(c.w.Security.Label)
	if c.w.PID.Kind == HostNS || c.w.IPC.Kind == HostNS {
		options = append(options, noLabels)
	}
	for _, label := range c.host.SELinux.Joined {
		options = append(options, sameLabel(label)...)
	}
	return options
}

// sameLabel are the options by which a container has the label of another one.
func sameLabel(label string) []string {
	l, err := selinux.Parse(label)
	if err != nil {
		return []string{noLabels}
	}
	options := []string{"user:" + l.User, "role:" + l.Role, "type:" + l.Type}
	if l.Level != "" {
		options = append(options, "level:"+l.Level)
	}
	return options
}

// labels are those of the processes and of the mounts. Without the first, which leaves the processes
// to what the policy says of the engine, mounts are still such that no other container may use them.
func (s *SELinux) labels(options []string, system bool) (process, mount string, err error) {
	p, m := s.Process.At(s.Level), s.File.At(s.Level)
	if system {
		p.Type = s.Init.Type
	}
	for _, option := range options {
		if option == noLabels {
			return "", s.File.At(selinux.Apart).String(), nil
		}
		key, value, has := strings.Cut(option, ":")
		switch to := map[string][]*string{"user": {&p.User, &m.User}, "role": {&p.Role}, "type": {&p.Type}, "level": {&p.Level, &m.Level}, "filetype": {&m.Type}}[key]; {
		case option == nestedLabels:
		case !has:
			return "", "", fmt.Errorf("bad label option %q, valid options 'disable', 'nested' or 'user, role, level, type, filetype' followed by ':' and a value", option)
		case to == nil:
			return "", "", fmt.Errorf("bad label option %q, valid options 'disable, user, role, level, type, filetype'", key)
		default:
			for _, part := range to {
				*part = value
			}
		}
	}
	for _, c := range []selinux.Context{p, m} {
		if _, err := selinux.Parse(c.String()); err != nil {
			return "", "", err
		}
	}
	return p.String(), m.String(), nil
}
