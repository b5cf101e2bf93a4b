package quadlet

import "fmt"

// volume makes the unit of a .volume: one that is there stays as it is.
func (c *compiler) volume() error {
	options, err := c.options()
	if err != nil {
		return err
	}
	for _, row := range []struct{ key, option string }{{"Type", "type="}, {"Device", "device="}} {
		if v := c.last(row.key); v != "" {
			options = append(options, "--opt="+row.option+v)
		}
	}
	mount := c.last("Options")
	for _, row := range []struct{ key, option string }{{"User", "uid="}, {"Group", "gid="}} {
		if v := c.last(row.key); v != "" {
			mount = join(mount, row.option+v)
		}
	}
	if mount != "" {
		options = append(options, "--opt=o="+mount)
	}
	if list := c.values("Copy"); len(list) > 0 {
		if _, err := yes(list[len(list)-1]); err != nil {
			return err
		}
		c.u.Warnings = append(c.u.Warnings, fmt.Sprintf("%s:%d: Copy= has no effect: Volume=NAME:PATH:nocopy of a container says so", list[0].Path, list[0].Line))
	}
	return c.object("volume", "Volume ", options, "")
}

func join(list, more string) string {
	if list == "" {
		return more
	}
	return list + "," + more
}

// network makes the unit of a .network: one that is there stays as it is.
func (c *compiler) network() error {
	options, err := c.options()
	if err != nil {
		return err
	}
	if v := c.last("InterfaceName"); v != "" {
		options = append(options, "--opt=com.docker.network.bridge.name="+v)
	}
	stop := ""
	if list := c.values("NetworkDeleteOnStop"); len(list) > 0 {
		on, err := yes(list[len(list)-1])
		if err != nil {
			return err
		}
		if on {
			stop = "rm"
		}
	}
	return c.object("network", "Network ", options, stop)
}

// object makes a unit that makes something once.
func (c *compiler) object(noun, title string, options []string, stop string) error {
	args, err := c.arguments("PodmanArgs")
	if err != nil {
		return err
	}
	name := ObjectName(c.f)
	c.unless("Unit", "Description", title+name)
	c.add("Service", "Type", "oneshot")
	c.add("Service", "RemainAfterExit", "yes")
	c.unless("Service", "SyslogIdentifier", "%N")
	line, err := c.call(append(append([]string{noun, "create", "--ignore"}, options...), append(args, name)...)...)
	if err != nil {
		return err
	}
	c.add("Service", "ExecStart", line)
	if stop != "" {
		line, _ := c.call(noun, stop, name)
		c.add("Service", "ExecStop", line)
	}
	return nil
}
