package resctrl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Class is where a container's processes are. It is plain data, to be kept
// with the container.
type Class struct {
	Root    string `json:"root"`              // of the file system
	Dir     string `json:"dir"`               // of the class
	Owned   bool   `json:"owned,omitempty"`   // the class was made for the container alone, and goes with it
	Monitor string `json:"monitor,omitempty"` // of the group that counts for it; empty: none
}

// An Op is what a Step does.
type Op string

// The ops.
const (
	Mkdir Op = "mkdir" // make the directory Path, which may be there
	Match Op = "match" // the file Path says Value, as far as that goes
	Write Op = "write" // Value into the file Path
)

// A Step is one request, as data.
type Step struct {
	Op    Op
	Root  string // of the file system
	Path  string
	Value string
	For   string // OCI's field
	own   *bool  // of a Mkdir: whether it was made by this step
}

// String is the step in one line.
func (s Step) String() string {
	if s.Value == "" {
		return fmt.Sprintf("%-9s %s", s.Op, s.Path)
	}
	return fmt.Sprintf("%-9s %s %q", s.Op, s.Path, s.Value)
}

// reserved are names of the file system's own.
var reserved = []string{"", ".", "..", "info", "mon_groups", "mon_data", "schemata", "tasks", "cpus", "cpus_list", "mode", "size"}

// Compile makes the class of a container id as r says: which is the one named
// closID, "/" for the root's, or a new one named as the container. It is pure
// but for exists, which tells whether a directory is there. Errors are
// fault.Invalid and fault.Unsupported and name the field.
func Compile(h Host, r *specs.LinuxIntelRdt, id string, exists func(dir string) bool) (Class, []Step, error) {
	if err := check(h, r, id); err != nil {
		return Class{}, nil, err
	}
	c := Class{Root: h.Root, Dir: path.Join(h.Root, id)}
	if r.ClosID != "" {
		c.Dir = path.Join(h.Root, r.ClosID)
	}
	there := exists(c.Dir)
	c.Owned = r.ClosID == "" && !there
	asked := r.L3CacheSchema != "" || r.MemBwSchema != "" || len(r.Schemata) > 0
	if r.ClosID != "" && !there && !asked {
		return Class{}, nil, field("closID", fault.NotFound, "there is no class "+strconv.Quote(r.ClosID)+", and no schema to make one by")
	}
	var steps []Step
	add := func(op Op, at, value, name string) {
		steps = append(steps, Step{Op: op, Root: h.Root, Path: at, Value: value, For: "linux.intelRdt." + name, own: new(bool)})
	}
	if !there {
		add(Mkdir, c.Dir, "", "closID")
	}
	// A class that others share is as they have it.
	how := Write
	if r.ClosID != "" && there {
		how = Match
	}
	schemata := c.Dir + "/schemata"
	if r.L3CacheSchema != "" {
		add(how, schemata, r.L3CacheSchema, "l3CacheSchema")
	}
	if r.MemBwSchema != "" {
		add(how, schemata, r.MemBwSchema, "memBwSchema")
	}
	if len(r.Schemata) > 0 {
		add(Write, schemata, strings.Join(r.Schemata, "\n"), "schemata")
	}
	if r.EnableMonitoring {
		c.Monitor = path.Join(c.Dir, "mon_groups", id)
		add(Mkdir, c.Monitor, "", "enableMonitoring")
	}
	return c, steps, nil
}

func check(h Host, r *specs.LinuxIntelRdt, id string) error {
	names := []string{id}
	if r.ClosID != "" && r.ClosID != "/" {
		names = append(names, r.ClosID)
	}
	for _, name := range names {
		if slices.Contains(reserved, name) || strings.ContainsAny(name, "/\n\x00") || len(name) > 255 {
			return field("closID", fault.Invalid, strconv.Quote(name)+" is no name of a class")
		}
	}
	for _, line := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if strings.ContainsAny(line, "\n\x00") {
			return field("schemata", fault.Invalid, "a schema is one line")
		}
	}
	switch {
	case r.L3CacheSchema != "" && !strings.HasPrefix(r.L3CacheSchema, "L3"):
		return field("l3CacheSchema", fault.Invalid, "it begins with L3:")
	case r.MemBwSchema != "" && !strings.HasPrefix(r.MemBwSchema, "MB:"):
		return field("memBwSchema", fault.Invalid, "it begins with MB:")
	case r.L3CacheSchema != "" && !h.L3:
		return field("l3CacheSchema", fault.Unsupported, "this processor does not share out its L3 cache")
	case r.MemBwSchema != "" && !h.MB:
		return field("memBwSchema", fault.Unsupported, "this processor does not share out memory bandwidth")
	case r.EnableMonitoring && len(h.Monitor) == 0:
		return field("enableMonitoring", fault.Unsupported, "this processor does not count")
	}
	return nil
}

func field(name string, kind fault.Kind, why string) error {
	return &fault.Error{Op: "carry out", On: "linux.intelRdt." + name, Kind: kind, Err: errors.New(why)}
}

// Do makes the request. Errors name the field, and have the kernel's own words
// from info/last_cmd_status.
func (s Step) Do() error {
	switch s.Op {
	case Mkdir:
		err := os.Mkdir(s.Path, 0o755)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		if err == nil && s.own != nil {
			*s.own = true
		}
		return s.explain(err)
	case Match:
		return s.match()
	}
	return s.explain(sys.WriteKnob(s.Path, s.Value+"\n"))
}

// Undo removes a directory that Do has made.
func (s Step) Undo() {
	if s.own != nil && *s.own {
		sys.Rmdir(s.Path)
	}
}

func (s Step) explain(err error) error {
	if err == nil {
		return nil
	}
	e := &fault.Error{Op: "carry out", On: s.For, Err: err}
	if status, bad := sys.ReadKnob(path.Join(s.Root, "info/last_cmd_status"), 4096); bad == nil && strings.TrimSpace(status) != "ok" {
		e.Err = fmt.Errorf("%w: %s", err, strings.TrimSpace(status))
	}
	return e
}

// match refuses a schema that is not the class's.
func (s Step) match() error {
	text, err := sys.ReadKnob(s.Path, 64<<10)
	if err != nil {
		return s.explain(err)
	}
	want, ok := parseSchema(s.Value)
	if !ok {
		return &fault.Error{Op: "carry out", On: s.For, Kind: fault.Invalid, Err: errors.New(strconv.Quote(s.Value) + " is no schema")}
	}
	for line := range strings.Lines(text) {
		if have, ok := parseSchema(line); ok && have.resource == want.resource && have.has(want) {
			return nil
		}
	}
	return &fault.Error{Op: "carry out", On: s.For, Kind: fault.Conflict, Err: errors.New("the class exists and has another schema"), Hint: "its schema is in " + s.Path}
}

// A schema is a line of schemata.
type schema struct {
	resource string            // "L3", "MB"
	parts    map[string]string // by the number of a cache
}

// parseSchema reads "L3:0=0ff;1=c0". The kernel pads numbers.
func parseSchema(line string) (schema, bool) {
	resource, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
	s := schema{strings.TrimSpace(resource), map[string]string{}}
	for part := range strings.SplitSeq(rest, ";") {
		cache, value, has := strings.Cut(strings.TrimSpace(part), "=")
		if !has || cache == "" || value == "" {
			return s, false
		}
		s.parts[normal(cache)] = normal(value)
	}
	return s, ok && s.resource != ""
}

// normal is a number without zeros before it.
func normal(number string) string {
	number = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(number), "0x"))
	if n := strings.TrimLeft(number, "0"); n != "" {
		return n
	}
	return "0"
}

func (s schema) has(want schema) bool {
	for cache, value := range want.parts {
		if s.parts[cache] != value {
			return false
		}
	}
	return true
}

// Tasks are the files into which a process writes "0" to get itself, and its
// children, into the class, in this order. Unlike cgroups one file is enough
// for each.
func (c Class) Tasks() []string {
	files := []string{c.Dir + "/tasks"}
	if c.Monitor != "" {
		files = append(files, c.Monitor+"/tasks")
	}
	return files
}

// Update changes the schemas of the class; an empty one stays. Whoever shares
// the class is changed too.
func (c Class) Update(l3, mb string) error {
	h := look(c.Root)
	if err := check(h, &specs.LinuxIntelRdt{L3CacheSchema: l3, MemBwSchema: mb}, "x"); err != nil {
		return err
	}
	for _, u := range []struct{ name, value string }{{"l3CacheSchema", l3}, {"memBwSchema", mb}} {
		if u.value == "" {
			continue
		}
		if err := (Step{Op: Write, Root: c.Root, Path: c.Dir + "/schemata", Value: u.value, For: "linux.intelRdt." + u.name}).Do(); err != nil {
			return err
		}
	}
	return nil
}

// Remove removes what was made for the container: its class, if that is its
// own, or the group that counted for it. What is gone is no error.
func (c Class) Remove() error {
	dir := c.Monitor
	if c.Owned {
		dir = c.Dir // with its mon_groups
	}
	if dir == "" {
		return nil
	}
	err := sys.Rmdir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &fault.Error{Op: "remove class", On: dir, Err: err}
	}
	return nil
}
