package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// An Op is what a Step does.
type Op string

// The ops.
const (
	Mkdir   Op = "mkdir"   // make the directory Path; with a Value it may exist
	Enable  Op = "enable"  // in Path, a cgroup.subtree_control, the controllers in Value
	Need    Op = "need"    // the controllers Value in Path, a cgroup.controllers
	Inherit Op = "inherit" // if the file Path, of a cpuset, is empty, fill it from the parent's file
	Write   Op = "write"   // Value into the file Path
	Attach  Op = "attach"  // the process Value into the cgroup of Path, a cgroup.procs
	Own     Op = "own"     // give the cgroup Path to the user Value
	Guard   Op = "guard"   // let the processes of the cgroup Path use the devices of Rules
)

// What a Mkdir finds may stay: shared is a directory that other groups use
// too, adopt one that nobody is in, unit one that systemd made.
const (
	shared = "shared"
	adopt  = "adopt"
	unit   = "unit"
)

// A Step is one request to the kernel, as data. Do makes it, Undo takes back
// what would otherwise stay. Values are safe to copy.
type Step struct {
	Op         Op
	Path       string
	Value      string
	For        string       // the OCI field it comes from, "linux.resources.memory.limit"; may be empty
	Controller string       // of a Write: the controller whose file it is
	Or         []File       // of a Write: what to do instead when Path is missing, in order
	Optional   bool         // of a Write: no error when Path and all of Or are missing; of an Enable: no error; of a Guard: none when denied
	Try        bool         // of a Write: a value that does not suit others in force is no error; a later step says it again
	Rules      []DeviceRule // of a Guard
	Fresh      bool         // of a Guard: the group has no rules yet
	V2         bool         // in the unified hierarchy
	Leaf       bool         // of a Mkdir: the group itself, not one above

	// Above are steps for the groups above. They are done only if the step
	// fails, which is then done again: nearly always all is there.
	Above []Step

	// made is set by a Mkdir that adopts where the directory is its own: it
	// undoes no other, and a Guard finds no rules there.
	made *bool
}

// fresh reports whether the group of a Guard has no rules yet.
func (s Step) fresh() bool { return s.Fresh || s.made != nil && *s.made }

// A File is a file of the same directory, and what to write.
type File struct{ Name, Value string }

// String is the step in one line.
func (s Step) String() string {
	line := string(s.Op) + "          "[:max(1, 10-len(s.Op))] + s.Path
	switch s.Op {
	case Mkdir, Inherit:
		return line
	case Need, Own:
		return line + " " + s.Value
	case Guard:
		return line + " " + strconv.Itoa(len(s.Rules)) + " device rules"
	}
	line += " " + strconv.Quote(s.Value)
	for _, f := range s.Or {
		line += ", or " + f.Name + " " + strconv.Quote(f.Value)
	}
	return line
}

// Do makes the request. Errors name the file, and for a limit its field and
// controller.
func (s Step) Do() error {
	err := s.do()
	for tries := 1; err != nil && s.again(err, tries); tries++ {
		if err = doAll(s.Above); err == nil && s.Op != Need {
			err = s.do()
		}
	}
	return err
}

// again reports whether the groups above may be why the step failed. A
// directory above may vanish at any time, since Tidy of another process found
// it empty.
func (s Step) again(err error, tries int) bool {
	if s.Op == Mkdir {
		return len(s.Above) > 0 && errors.Is(err, fs.ErrNotExist) && tries < 6
	}
	return len(s.Above) > 0 && tries < 2
}

func doAll(steps []Step) error {
	for _, s := range steps {
		if err := s.Do(); err != nil {
			return err
		}
	}
	return nil
}

func (s Step) do() error {
	switch s.Op {
	case Mkdir:
		return s.mkdir()
	case Enable:
		return s.enable()
	case Need:
		return s.need()
	case Inherit:
		return s.inherit()
	case Attach:
		return s.attach()
	case Own:
		return s.own()
	case Guard:
		return s.guard()
	}
	return s.write()
}

// Undo takes back what Do made and the end of the process would not: the
// directory. What others may use by now stays.
func (s Step) Undo() {
	if s.Op == Mkdir && s.Value != shared && (s.made == nil || *s.made) {
		sys.Rmdir(s.Path)
	}
}

func (s Step) mkdir() error {
	err := sys.Mkdir(s.Path, 0o755)
	switch {
	case err == nil && s.made != nil:
		*s.made = true
		return nil
	case err == nil || (s.Value == shared || s.Value == unit) && errors.Is(err, fs.ErrExist):
		return nil
	case s.Value == adopt && errors.Is(err, fs.ErrExist):
		return idle(s.Path, s.V2)
	case errors.Is(err, fs.ErrExist):
		return &fault.Error{Op: "create cgroup", On: s.Path, Kind: fault.Exists, Err: syscall.EEXIST,
			Hint: `take another name, or remove that group: "kiste cgroup remove"`}
	case errors.Is(err, syscall.EAGAIN):
		return &fault.Error{Op: "create cgroup", On: s.Path, Err: syscall.EAGAIN,
			Hint: "cgroup.max.descendants or cgroup.max.depth of a group above is reached"}
	}
	return denied("create cgroup", s.Path, err)
}

// denied is the error of a request on path, with the remedy where it was not
// permitted.
func denied(op, path string, err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	e := &fault.Error{Op: op, On: path, Err: err}
	switch {
	case errors.Is(err, syscall.EROFS):
		e.Hint = "cgroups are mounted read-only here, as in a container"
	case fault.KindOf(err) == fault.Denied:
		e.Hint = "run as root, or in a cgroup of your own: systemd-run --user --scope -p Delegate=yes kiste …"
	}
	return e
}

// enable asks first: the file of a busy host has everything already, and a
// delegated user may not write the files above.
func (s Step) enable() error {
	have, err := sys.ReadKnob(s.Path, 4096)
	if err != nil {
		return denied("enable controllers", s.Path, err)
	}
	var missing []string
	for _, c := range strings.Fields(s.Value) {
		if !hasWord(have, strings.TrimPrefix(c, "+")) {
			missing = append(missing, c)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if s.Optional {
		for _, c := range missing { // alone: one that is refused takes no other along
			sys.WriteKnob(s.Path, c)
		}
		return nil
	}
	err = sys.WriteKnob(s.Path, strings.Join(missing, " "))
	e := &fault.Error{Op: "enable controllers " + strings.Join(missing, " "), On: s.Path, Err: err}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOENT):
		e.Kind = fault.Unsupported
		e.Err = fault.Unsupported
		e.Hint = "the group above did not hand these controllers on; see its cgroup.controllers"
	case errors.Is(err, syscall.EOPNOTSUPP):
		e.Kind, e.Err, e.Hint = fault.Unsupported, errText("it is "+kindOf(path.Dir(s.Path))), threadedHint
	case errors.Is(err, syscall.EBUSY):
		e.Err = syscall.EBUSY
		e.Hint = "a version 2 group with processes of its own cannot hand controllers on: move them into a group below first"
	case fault.KindOf(err) == fault.Denied && os.Geteuid() != 0:
		e.Err = errText("these controllers are not delegated to this user")
		e.Kind = fault.Denied
		e.Hint = "systemctl edit user@.service, and set there: [Service] Delegate=cpu cpuset io memory pids"
	default:
		return denied(e.Op, s.Path, err)
	}
	return e
}

// own follows cgroups(7), "Delegating a hierarchy".
func (s Step) own() error {
	uid, err := strconv.Atoi(s.Value)
	if err != nil {
		return wrap("give away cgroup", s.Path, err)
	}
	// Of version 1 without a controller's, and without the tasks, by which its
	// maker's children enter.
	files := "cgroup.procs cgroup.clone_children notify_on_release"
	if s.V2 {
		if files, err = sys.ReadKnob("/sys/kernel/cgroup/delegate", 4096); err != nil {
			return wrap("read", "/sys/kernel/cgroup/delegate", err)
		}
	}
	for _, name := range append([]string{"."}, strings.Fields(files)...) {
		err := os.Chown(path.Join(s.Path, name), uid, -1)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // of a controller that is not handed on
			return wrap("give away cgroup", s.Path, err)
		}
	}
	return nil
}

func hasWord(text, word string) bool {
	for w := range strings.FieldsSeq(text) {
		if w == word {
			return true
		}
	}
	return false
}

// need is an error where a controller is missing. Those that are only wished
// for stay so: what is needed and missing is the error of an Enable, or of the
// Write of its file.
func (s Step) need() error {
	have, err := sys.ReadKnob(s.Path, 4096)
	if err != nil {
		return denied("read", s.Path, err)
	}
	for c := range strings.FieldsSeq(s.Value) {
		if !hasWord(have, c) {
			return unsupported("cgroup "+path.Base(path.Dir(s.Path)), c, "the groups above do not hand it on")
		}
	}
	return nil
}

// inherit goes upwards while it finds nothing: a new cpuset of version 1 has
// neither CPUs nor memory, and nobody can enter it.
func (s Step) inherit() error {
	own, err := sys.ReadKnob(s.Path, 4096)
	if err != nil || strings.TrimSpace(own) != "" {
		return wrap("read", s.Path, err)
	}
	above := path.Join(path.Dir(path.Dir(s.Path)), path.Base(s.Path))
	v, err := sys.ReadKnob(above, 4096)
	if err == nil && strings.TrimSpace(v) == "" {
		if err := (Step{Op: Inherit, Path: above}).inherit(); err != nil {
			return err
		}
		v, err = sys.ReadKnob(above, 4096)
	}
	if err != nil {
		return wrap("read", above, err)
	}
	return wrap("write", s.Path, sys.WriteKnob(s.Path, strings.TrimSpace(v)))
}

func wrap(op, on string, err error) error {
	if err == nil {
		return nil
	}
	return denied(op, on, err)
}

func (s Step) write() error {
	files := append([]File{{path.Base(s.Path), s.Value}}, s.Or...)
	var err error
	for _, f := range files {
		err = sys.WriteKnob(path.Join(path.Dir(s.Path), f.Name), f.Value)
		if !missingFile(err) {
			break
		}
	}
	switch {
	case err == nil || s.Optional && missingFile(err) || s.Try && errors.Is(err, syscall.EINVAL):
		return nil
	case missingFile(err) && s.V2 && kindOf(path.Dir(s.Path)) != "domain":
		e := unsupported(s.For, s.Controller, "cgroup "+path.Base(path.Dir(s.Path))+" is "+kindOf(path.Dir(s.Path))).(*fault.Error)
		e.Hint = threadedHint
		return e
	case missingFile(err):
		return unsupported(s.For, s.Controller, "this kernel's has no file "+path.Base(s.Path))
	}
	return s.explain(err)
}

// missingFile is how cgroupfs says that it does not know a file: ENOENT, or
// EACCES/EPERM for root, who would have had to create it.
func missingFile(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EOPNOTSUPP)
}

// explain says of which limit the kernel did not like which value.
func (s Step) explain(err error) error {
	e := denied("set "+s.name()+" to "+strconv.Quote(s.Value)+" in", s.Path, err).(*fault.Error)
	switch {
	case e.Hint != "":
	case errors.Is(err, syscall.EBUSY):
		e.Hint = "the group uses more than that now, or groups below it do" + usedMemory(path.Dir(s.Path))
	case errors.Is(err, syscall.EINVAL) && s.Controller == "memory":
		e.Hint = "memory and swap together cannot be less than memory"
	case errors.Is(err, syscall.EINVAL):
		e.Hint = "the value is out of range, or exceeds that of the group above"
	case errors.Is(err, syscall.ENODEV):
		e.Hint = "there is no such block device; limits are for whole disks, not partitions"
	}
	return e
}

func (s Step) name() string {
	if s.For == "" {
		return path.Base(s.Path)
	}
	return strings.TrimPrefix(s.For, "linux.resources.")
}

func (s Step) attach() error {
	dir := path.Dir(s.Path)
	err := sys.WriteKnob(s.Path, s.Value)
	if s.V2 && MakeThreaded(dir, err) {
		err = sys.WriteKnob(s.Path, s.Value)
	}
	if err == nil {
		return nil
	}
	return refused("move process "+s.Value+" into", dir, err)
}

// Do carries out steps in order. When one fails those before it are undone in
// reverse, and its error is returned.
func Do(steps []Step) error {
	for i, s := range steps {
		if err := s.Do(); err != nil {
			Undo(steps[:i])
			return err
		}
	}
	return nil
}

// Undo undoes steps in reverse.
func Undo(steps []Step) {
	for i := len(steps) - 1; i >= 0; i-- {
		steps[i].Undo()
	}
}

func unsupported(field, controller, why string) error {
	return &fault.Error{Op: "limit", On: strings.TrimPrefix(field, "linux.resources."), Kind: fault.Unsupported,
		Err: fmt.Errorf("cgroup controller %s: %s", controller, why)}
}
