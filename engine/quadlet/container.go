package quadlet

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"kiste/fault"
)

// container makes the unit of a .container.
func (c *compiler) container() error {
	name := c.last("ContainerName")
	if name == "" {
		name = "systemd-%N"
	}
	options := []string{"run", "--name=" + name, "--replace", "--rm"}
	if c.last("CgroupsMode") == "" {
		options = append(options, "--cgroups=split")
	}
	notify, err := c.notify()
	if err != nil {
		return err
	}
	more, err := c.options()
	if err != nil {
		return err
	}
	options = slices.Concat(options, notify, more)
	for _, part := range []func() ([]string, error){c.logging, c.owner, c.files, c.networks, c.mounts, c.security, c.readOnlyTmpfs} {
		more, err := part()
		if err != nil {
			return err
		}
		options = append(options, more...)
	}
	args, err := c.arguments("PodmanArgs")
	if err != nil {
		return err
	}
	what, err := c.what()
	if err != nil {
		return err
	}
	if err := c.surroundings(name); err != nil {
		return err
	}
	start, err := c.call(slices.Concat(options, args, what)...)
	if err != nil {
		return err
	}
	c.add("Service", "ExecStart", start)
	stop, _ := c.call("stop", name)
	c.add("Service", "ExecStop", stop)
	remove, _ := c.call("rm", "-f", "-v", name)
	c.add("Service", "ExecStopPost", "-"+remove)
	return c.reload(name)
}

// surroundings are the lines that all services of containers have.
func (c *compiler) surroundings(name string) error {
	c.unless("Unit", "Description", "Container "+name)
	usual := true
	for _, e := range c.f.values("Quadlet", "DefaultDependencies") {
		on, err := yes(e)
		if err != nil {
			return err
		}
		usual = on
	}
	if usual {
		c.add("Unit", "Wants", "network-online.target")
		c.add("Unit", "After", "network-online.target")
	}
	c.add("Service", "Environment", "KISTE_SYSTEMD_UNIT=%n")
	c.unless("Service", "KillMode", "mixed")
	c.unless("Service", "SyslogIdentifier", "%N")
	c.unless("Service", "SuccessExitStatus", "143")
	c.add("Service", "Delegate", "yes")
	if !c.has("Service", "Type") {
		c.add("Service", "Type", "notify")
		c.add("Service", "NotifyAccess", "all")
	}
	return nil
}

// notify says who tells that the service has come up.
func (c *compiler) notify() ([]string, error) {
	list := c.values("Notify")
	who := "conmon"
	if len(list) > 0 {
		e := list[len(list)-1]
		on, err := yes(e)
		switch {
		case e.Value == "healthy":
			who = "healthy"
		case err != nil:
			return nil, e.errorf("Notify=%s: want yes, no or healthy", e.Value)
		case on:
			who = "container"
		}
	}
	if kind := c.f.last("Service", "Type"); kind != "" && kind != "notify" {
		return nil, nil
	}
	return []string{"--sdnotify=" + who}, nil
}

// logging leaves the output, which the journal has anyway, also to kiste logs.
func (c *compiler) logging() ([]string, error) {
	switch driver := c.last("LogDriver"); driver {
	case "", "passthrough", "journald":
		return nil, nil
	case "k8s-file":
		return []string{"--log-driver=json-file"}, nil
	default:
		return []string{"--log-driver=" + driver}, nil
	}
}

func (c *compiler) owner() ([]string, error) {
	user, group := c.last("User"), c.last("Group")
	switch {
	case user == "" && group != "":
		return nil, c.values("Group")[0].errorf("Group= wants User=")
	case user == "":
		return nil, nil
	case group != "":
		user += ":" + group
	}
	return []string{"--user=" + user}, nil
}

// files are variables in files, whose paths begin beside the quadlet's.
func (c *compiler) files() (out []string, err error) {
	for _, e := range c.values("EnvironmentFile") {
		out = append(out, "--env-file="+c.beside(strings.TrimPrefix(e.Value, "-")))
	}
	return out, nil
}

// beside is the absolute form of a path that begins at the file, or with a
// specifier of systemd's.
func (c *compiler) beside(p string) string {
	if path.IsAbs(p) || strings.HasPrefix(p, "%") {
		return p
	}
	return path.Join(path.Dir(c.f.Path), p)
}

func (c *compiler) networks() (out []string, err error) {
	for _, e := range c.values("Network") {
		name, options, has := strings.Cut(e.Value, ":")
		switch {
		case strings.HasSuffix(name, ".network"):
			if name, err = c.refer(e, name); err != nil {
				return nil, err
			}
		case strings.HasSuffix(name, ".container"):
			if name, err = c.refer(e, name); err != nil {
				return nil, err
			}
			name = "container:" + name
		}
		if has {
			name += ":" + options
		}
		out = append(out, "--network="+name)
	}
	return out, nil
}

func (c *compiler) mounts() (out []string, err error) {
	for _, e := range c.values("Volume") {
		source, rest, has := strings.Cut(e.Value, ":")
		if has {
			if source, err = c.source(e, source); err != nil {
				return nil, err
			}
			source += ":"
		}
		out = append(out, "--volume="+source+rest)
	}
	for _, e := range c.values("Mount") {
		fields := strings.Split(e.Value, ",")
		for i, f := range fields {
			key, value, ok := strings.Cut(f, "=")
			if !ok || key != "source" && key != "src" {
				continue
			}
			if value, err = c.source(e, value); err != nil {
				return nil, err
			}
			fields[i] = key + "=" + value
		}
		out = append(out, "--mount="+strings.Join(fields, ","))
	}
	return out, nil
}

// source is where a mount comes from: another quadlet's volume, a path beside the
// file, or what it says.
func (c *compiler) source(e Entry, s string) (string, error) {
	switch {
	case strings.HasSuffix(s, ".volume"):
		return c.refer(e, s)
	case strings.HasSuffix(s, ".image") || strings.HasSuffix(s, ".build"):
		return "", e.errorf("%s=%s: files of images and builds are not supported", e.Key, e.Value)
	case strings.HasPrefix(s, "."):
		return c.beside(s), nil
	}
	return s, nil
}

func (c *compiler) security() (out []string, err error) {
	for _, row := range []struct{ key, option string }{
		{"SeccompProfile", "seccomp="}, {"SecurityLabelType", "label=type:"}, {"SecurityLabelLevel", "label=level:"}, {"SecurityLabelFileType", "label=filetype:"},
	} {
		if v := c.last(row.key); v != "" {
			out = append(out, "--security-opt="+row.option+v)
		}
	}
	for _, e := range c.values("Unmask") {
		if e.Value != "ALL" {
			return nil, e.errorf("Unmask=%s: only ALL is supported", e.Value)
		}
		out = append(out, "--security-opt=systempaths=unconfined")
	}
	return out, nil
}

// readOnlyTmpfs are the places that stay writable in a read-only root. Podman's
// default is yes.
func (c *compiler) readOnlyTmpfs() ([]string, error) {
	list := c.values("ReadOnly")
	if len(list) == 0 {
		return nil, nil
	}
	if on, err := yes(list[len(list)-1]); err != nil || !on {
		return nil, err
	}
	if list := c.values("ReadOnlyTmpfs"); len(list) > 0 {
		if on, err := yes(list[len(list)-1]); err != nil || !on {
			return nil, err
		}
	}
	var out []string
	for _, at := range []string{"/run", "/tmp", "/var/tmp"} {
		out = append(out, "--tmpfs="+at+":mode=1777")
	}
	return out, nil
}

// what is the image, or the directory, and the command.
func (c *compiler) what() ([]string, error) {
	image, root := c.last("Image"), c.last("Rootfs")
	if (image == "") == (root == "") {
		return nil, &fault.Error{Op: "read", On: c.f.Path, Kind: fault.Invalid, Err: fmt.Errorf("[Container] wants either Image= or Rootfs=")}
	}
	if strings.HasSuffix(image, ".image") || strings.HasSuffix(image, ".build") {
		return nil, c.values("Image")[0].errorf("Image=%s: files of images and builds are not supported", image)
	}
	out := []string{image}
	if root != "" {
		out = []string{"rootfs:" + c.beside(root)}
	}
	list := c.values("Exec")
	if len(list) == 0 {
		return out, nil
	}
	command, err := Words(list[len(list)-1])
	return append(out, command...), err
}

// reload is what systemctl reload does.
func (c *compiler) reload(name string) error {
	if signal := c.last("ReloadSignal"); signal != "" {
		line, err := c.call("kill", "--signal="+signal, name)
		c.add("Service", "ExecReload", line)
		return err
	}
	list := c.values("ReloadCmd")
	if len(list) == 0 {
		return nil
	}
	command, err := Words(list[len(list)-1])
	if err != nil {
		return err
	}
	line, err := c.call(append([]string{"exec", name}, command...)...)
	c.add("Service", "ExecReload", line)
	return err
}
