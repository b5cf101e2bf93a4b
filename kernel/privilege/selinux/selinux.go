// Package selinux is the part of SELinux that containers need: under which labels
// their processes run and their files lie.
//
//	takes    the host's policy: /etc/selinux and selinuxfs, reading
//	gives    contexts; what the policy has for containers; pairs of categories
//	touches  files of the policy; the label of a file that is open
//	state    the kernel's, and extended attributes of files
//
// A label is a context, user:role:type:level. The type says what a process may do to
// what kind of file, and the policy's contexts/lxc_contexts names those of containers. The
// level keeps containers apart that have the same type: each has two categories of
// 1024, and a process only reaches files all of whose categories it has. So there is
// nothing to be configured for each container.
//
// What the package does not do: set the label of a process, which is a step of
// container/plan, and decide which files belong to whom. Nothing is cached, and all
// functions are safe for concurrent use.
package selinux

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"kiste/internal/sys"
)

// A Context is a label. Without MLS there is no Level.
type Context struct{ User, Role, Type, Level string }

// Parse reads a context. One without a type is an error; what the policy knows is not asked.
func Parse(s string) (Context, error) {
	part := strings.SplitN(s, ":", 4)
	if len(part) < 3 || part[0] == "" || part[1] == "" || part[2] == "" || strings.ContainsAny(s, "\x00 \t\r\n\"") {
		return Context{}, fmt.Errorf("%q is no context: want user:role:type:level", s)
	}
	c := Context{User: part[0], Role: part[1], Type: part[2]}
	if len(part) == 4 {
		c.Level = part[3]
	}
	return c, nil
}

func (c Context) String() string {
	switch {
	case c.Type == "":
		return ""
	case c.Level == "":
		return c.User + ":" + c.Role + ":" + c.Type
	}
	return c.User + ":" + c.Role + ":" + c.Type + ":" + c.Level
}

// At is c at another level; where the policy has none it stays without.
func (c Context) At(level string) Context {
	if c.Level != "" {
		c.Level = level
	}
	return c
}

// Shared is the level of what every container may have.
const Shared = "s0"

// Apart is the level of mounts of containers whose processes have no label: that of no
// other container. It is go-selinux's.
const Apart = "s0:c1022,c1023"

// pairs is the number of categories of which a container gets two: all of 1024 but those of Apart.
const pairs = 1022

// Level makes a level of a number: two different categories, the smaller one first. There are
// 521,731 levels, and numbers that follow one another give different ones.
func Level(n uint64) string {
	a := n % pairs
	b := (a + 1 + n/pairs%(pairs-1)) % pairs
	return fmt.Sprintf("s0:c%d,c%d", min(a, b), max(a, b))
}

// Labels are the contexts that a policy has for containers.
type Labels struct {
	Process Context // of a container's processes
	Init    Context // of one that is a whole system
	File    Context // of a container's files
	Layer   Context // of files of images: every container may read them, and execute
}

// ParseContexts reads lxc_contexts: lines of KEY = "CONTEXT". As in libselinux and go-selinux
// other keys, and what is no such line, are left out, and the last line of a key counts. Where
// there is no init_process, it is process, and file where there is no ro_file. Without process
// and file it is an error: the policy has nothing for containers.
func ParseContexts(text []byte) (Labels, error) {
	var l Labels
	for line := range strings.Lines(string(text)) {
		key, value, ok := strings.Cut(line, "=")
		key = strings.TrimSpace(key)
		to := map[string]*Context{"process": &l.Process, "init_process": &l.Init, "file": &l.File, "ro_file": &l.Layer}[key]
		if !ok || to == nil {
			continue
		}
		c, err := Parse(strings.Trim(strings.TrimSpace(value), `"`))
		if err != nil {
			return Labels{}, fmt.Errorf("%s: %w", key, err)
		}
		*to = c
	}
	if l.Process.Type == "" || l.File.Type == "" {
		return Labels{}, errors.New("there are no labels of a process and of a file")
	}
	if l.Init.Type == "" {
		l.Init = l.Process
	}
	if l.Layer.Type == "" {
		l.Layer = l.File
	}
	return l, nil
}

// places are where contexts of containers are looked for: those of who makes packages of container
// engines come first, as in go-selinux.
func places() []string {
	return []string{"/usr/share/containers/selinux/contexts", filepath.Join("/etc/selinux", policyName(), "contexts/lxc_contexts")}
}

// policyName is SELINUXTYPE of /etc/selinux/config, selinux_config(5).
func policyName() string {
	text, _ := sys.ReadFile("/etc/selinux/config", 64<<10)
	return ParseConfig(text)
}

// ParseConfig reads the policy's name of /etc/selinux/config; libselinux's default where there is none.
func ParseConfig(text []byte) string {
	name := "targeted"
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "SELINUXTYPE="); ok && v != "" && !strings.Contains(v, "/") && v != ".." {
			name = strings.TrimSpace(v)
		}
	}
	return name
}

// Containers reads what the host's policy has for containers. False: it has nothing, or names
// types that the kernel's policy lacks. Ask only where host.SELinux is.
func Containers() (Labels, bool) {
	for _, file := range places() {
		text, err := sys.ReadFile(file, 64<<10)
		if err != nil {
			continue
		}
		l, err := ParseContexts(text)
		return l, err == nil && valid(l.Process) && valid(l.File)
	}
	return Labels{}, false
}

// valid reports whether the kernel's policy has a context: what is written to selinuxfs's file
// context is looked up, security_check_context(3).
func valid(c Context) bool {
	f, err := os.OpenFile("/sys/fs/selinux/context", os.O_RDWR, 0)
	if err != nil {
		return true // who may not ask hears it when it is set
	}
	defer f.Close()
	_, err = f.WriteString(c.String())
	return !errors.Is(err, syscall.EINVAL)
}

// Attribute is the extended attribute of a file that is its label: xattr(7).
const Attribute = "security.selinux"

// ContextType is crun's annotation that says which option of a mount the container's label of mounts
// is: "context" where it is missing. With "rootcontext" files in it can have labels of their own.
const ContextType = "run.oci.mount_context_type"

// Set gives what fd stands for, also one opened with O_PATH, a label: of a link it is the
// link's own. A file system that keeps no labels is errors.ErrUnsupported.
func Set(fd int, label string) error { return sys.SetXattrFD(fd, Attribute, []byte(label)) }

// Get is the label of what fd stands for; empty: it cannot be known.
func Get(fd int) string {
	b, _ := sys.GetXattrFD(fd, Attribute)
	return strings.TrimRight(string(b), "\x00")
}

// MayRelabel refuses the directories that a host does not work without, of which somebody who
// binds them hardly wants that nobody but containers may use them. They are go-selinux's. Path is
// absolute and clean; homes are directories of users.
func MayRelabel(path string, homes ...string) error {
	for _, kept := range append(homes, "/", "/bin", "/boot", "/dev", "/etc", "/etc/passwd", "/etc/pki", "/etc/shadow", "/home", "/lib", "/lib64", "/media", "/opt",
		"/proc", "/root", "/run", "/sbin", "/srv", "/sys", "/tmp", "/usr", "/var", "/var/lib", "/var/log") {
		if path == kept {
			return fmt.Errorf("SELinux relabeling of %s is not allowed", path)
		}
	}
	return nil
}
