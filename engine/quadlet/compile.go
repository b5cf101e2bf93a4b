package quadlet

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"kiste/fault"
)

// Options say for whom units are made.
type Options struct {
	Program     string   // the path of kiste
	User        bool     // for an instance of systemd of a user's
	Environment []string // of the units: "KISTE_LIB=/srv/kiste"
}

// A Unit is what a file becomes.
type Unit struct {
	Name     string // "web.service"
	Text     string
	Links    []string // below the directory of units: "default.target.wants/web.service"
	Warnings []string // of keys that have no effect
}

// Compile makes the unit of a file. Others are names of the quadlet files that
// there are besides, in which this one may name volumes and networks, each with
// the name that its object has. Errors are fault.Invalid, or fault.Unsupported for
// what Kiste has not, and name file and line.
func Compile(f *File, others map[string]string, o Options) (*Unit, error) {
	name := path.Base(f.Path)
	k, ok := kindOf(name)
	switch {
	case !ok:
		return nil, &fault.Error{Op: "read", On: f.Path, Kind: fault.Invalid, Err: fmt.Errorf("it is no quadlet file")}
	case k.why != "":
		return nil, &fault.Error{Op: "read", On: f.Path, Kind: fault.Unsupported, Err: fmt.Errorf("%s", k.why)}
	}
	if strings.ContainsFunc(name, func(r rune) bool { return !plain(r) || strings.ContainsRune("=/,%+$", r) }) {
		return nil, &fault.Error{Op: "read", On: f.Path, Kind: fault.Invalid, Err: fmt.Errorf("no unit has such a name: want letters, digits and :_.@-")}
	}
	c := &compiler{f: f, kind: k, others: others, o: o, base: strings.TrimSuffix(name, k.ending)}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.add("Unit", "SourcePath", f.Path)
	for _, line := range o.Environment {
		c.add("Service", "Environment", quote(line))
	}
	if err := k.compile(c); err != nil {
		return nil, err
	}
	c.u.Name, c.u.Text = c.base+k.suffix+".service", c.text()
	c.links()
	return &c.u, nil
}

// ObjectName is the name of the container, volume or network of a file.
func ObjectName(f *File) string {
	k, _ := kindOf(f.Path)
	name := map[string]string{"Container": "ContainerName", "Volume": "VolumeName", "Network": "NetworkName"}[k.section]
	if own := f.last(k.section, name); own != "" {
		return own
	}
	return "systemd-" + strings.TrimSuffix(path.Base(f.Path), k.ending)
}

// A compiler is a unit in the making.
type compiler struct {
	f      *File
	kind   kind
	others map[string]string
	o      Options
	base   string // the file's name without its ending
	u      Unit
	made   []Entry // what is added to the sections of systemd
}

func (c *compiler) add(section, key, value string) {
	c.made = append(c.made, Entry{Section: section, Key: key, Value: value})
}

// has reports whether the file itself sets a key of systemd's.
func (c *compiler) has(section, key string) bool { return len(c.f.values(section, key)) > 0 }

func (c *compiler) unless(section, key, value string) {
	if !c.has(section, key) {
		c.add(section, key, value)
	}
}

func (c *compiler) last(key string) string { return c.f.last(c.kind.section, key) }

func (c *compiler) values(key string) []Entry { return c.f.values(c.kind.section, key) }

// theirs are systemd's sections, of which it knows the keys itself.
var theirs = []string{"Unit", "Service", "Install"}

// check refuses what nobody knows.
func (c *compiler) check() error {
	for _, e := range c.f.Entries {
		switch {
		case slices.Contains(theirs, e.Section) || strings.HasPrefix(e.Section, "X-"):
		case e.Section == "Quadlet" && e.Key == "DefaultDependencies":
		case e.Section != c.kind.section:
			return e.errorf("unknown section [%s]", e.Section)
		default:
			if err := c.checkKey(e); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *compiler) checkKey(e Entry) error {
	i := slices.IndexFunc(c.kind.keys, func(k key) bool { return k.name == e.Key })
	switch {
	case i < 0:
		return e.errorf("unknown key %s in [%s]", e.Key, e.Section)
	case c.kind.keys[i].form == missing:
		err := e.errorf("%s= is not supported: %s", e.Key, c.kind.keys[i].why).(*fault.Error)
		err.Kind = fault.Unsupported
		return err
	case c.kind.keys[i].form == nothing:
		c.u.Warnings = append(c.u.Warnings, fmt.Sprintf("%s:%d: %s= has no effect: %s", e.Path, e.Line, e.Key, c.kind.keys[i].why))
	}
	return nil
}

// options are those of the keys that the table alone tells.
func (c *compiler) options() ([]string, error) {
	var out []string
	for _, k := range c.kind.keys {
		list := c.values(k.name)
		if k.form == single && len(list) > 1 {
			list = list[len(list)-1:]
		}
		for _, e := range list {
			more, err := k.apply(e)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
		}
	}
	return out, nil
}

// apply makes the options of one value.
func (k key) apply(e Entry) ([]string, error) {
	switch k.form {
	case single, each:
		return []string{k.option + "=" + e.Value}, nil
	case words:
		list, err := Words(e)
		for i := range list {
			list[i] = k.option + "=" + list[i]
		}
		return list, err
	case boolean, whenOn:
		on, err := yes(e)
		switch {
		case err != nil || k.form == whenOn && !on:
			return nil, err
		case k.form == whenOn:
			return []string{k.option}, nil
		}
		return []string{fmt.Sprintf("%s=%v", k.option, on)}, nil
	}
	return nil, nil
}

// yes reads a boolean as systemd does.
func yes(e Entry) (bool, error) {
	switch strings.ToLower(e.Value) {
	case "1", "yes", "y", "true", "t", "on":
		return true, nil
	case "0", "no", "n", "false", "f", "off":
		return false, nil
	}
	return false, e.errorf("%s=%s: want yes or no", e.Key, e.Value)
}

// arguments are the words of the keys that have command lines in them.
func (c *compiler) arguments(key string) ([]string, error) {
	var out []string
	for _, e := range c.values(key) {
		list, err := Words(e)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// call is a command line of kiste's: the program, options of all commands, and the
// words of one.
func (c *compiler) call(command ...string) (string, error) {
	global, err := c.arguments("GlobalArgs")
	return Quote(slices.Concat([]string{c.o.Program}, global, command)), err
}

// refer makes the unit come after that of another quadlet file, and gives the name
// of its object.
func (c *compiler) refer(e Entry, file string) (string, error) {
	name, ok := c.others[file]
	if !ok {
		return "", e.errorf("%s=%s: there is no file %s", e.Key, e.Value, file)
	}
	k, _ := kindOf(file)
	unit := strings.TrimSuffix(file, k.ending) + k.suffix + ".service"
	c.add("Unit", "Requires", unit)
	c.add("Unit", "After", unit)
	return name, nil
}

// text writes the unit: the file's own sections for systemd, with what is added,
// and Podman's as those that systemd passes over.
func (c *compiler) text() string {
	var b strings.Builder
	b.WriteString("# Made by kiste generate quadlet of " + c.f.Path + "\n")
	var order []string
	lines := map[string][]string{}
	put := func(section string, e Entry) {
		if _, ok := lines[section]; !ok {
			order = append(order, section)
		}
		lines[section] = append(lines[section], e.Key+"="+e.Value)
	}
	for _, e := range c.f.Entries {
		section := e.Section
		if !slices.Contains(theirs, section) && !strings.HasPrefix(section, "X-") {
			section = "X-" + section
		}
		put(section, e)
	}
	for _, e := range c.made {
		put(e.Section, e)
	}
	for _, section := range order {
		b.WriteString("\n[" + section + "]\n" + strings.Join(lines[section], "\n") + "\n")
	}
	return b.String()
}

// links are those by which [Install] is followed: a generator's units cannot be
// enabled.
func (c *compiler) links() {
	for _, row := range []struct{ key, ending string }{{"WantedBy", ".wants"}, {"RequiredBy", ".requires"}, {"UpheldBy", ".upholds"}} {
		for _, e := range c.f.values("Install", row.key) {
			for target := range strings.FieldsSeq(e.Value) {
				if linkable(target) {
					c.u.Links = append(c.u.Links, target+row.ending+"/"+c.u.Name)
				}
			}
		}
	}
	for _, e := range c.f.values("Install", "Alias") {
		for name := range strings.FieldsSeq(e.Value) {
			if linkable(name) {
				c.u.Links = append(c.u.Links, name)
			}
		}
	}
}

// linkable reports whether name is one of a unit and leads nowhere else.
func linkable(name string) bool { return !strings.Contains(name, "/") && name != "." && name != ".." }
