package bundle

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// ParseVolume reads the value of -v: "[SOURCE:]TARGET[:OPTIONS]". A SOURCE that
// begins with "." is below cwd; an absolute one is a bind, made as a directory
// if it is missing; any other is a volume's name.
func ParseVolume(spec, cwd string) (Mount, error) {
	if spec == "" {
		return Mount{}, errors.New("invalid empty volume spec")
	}
	part := strings.Split(spec, ":")
	if slices.Contains(part, "") {
		return Mount{}, fmt.Errorf("invalid spec: %s: empty section between colons", spec)
	}
	m := Mount{Type: "volume", Target: part[len(part)-1], Option: "-v", Text: spec}
	switch len(part) {
	case 1:
	case 2:
		m.Source = part[0]
	case 3:
		m.Source, m.Target = part[0], part[1]
		if err := volumeMode(&m, part[2]); err != nil {
			return Mount{}, err
		}
	default:
		return Mount{}, fmt.Errorf("invalid spec: %s: too many colons", spec)
	}
	if len(part) == 2 && validMode(part[1]) {
		return Mount{}, fmt.Errorf("invalid volume specification: '%s'", spec)
	}
	if err := volumeSource(&m, cwd); err != nil {
		return Mount{}, err
	}
	return m, checkMount(&m)
}

func volumeSource(m *Mount, cwd string) error {
	if strings.HasPrefix(m.Source, ".") {
		m.Source = path.Join(cwd, m.Source)
	}
	if path.IsAbs(m.Source) {
		m.Type, m.CreateSource = "bind", true
		m.Source = path.Clean(m.Source)
	}
	if m.Type == "volume" && m.Propagation != "" {
		return fmt.Errorf("invalid volume specification: '%s': propagation is for host directories", m.Text)
	}
	if m.Type == "bind" && m.NoCopy {
		return fmt.Errorf("invalid volume specification: '%s': nocopy is for volumes", m.Text)
	}
	return nil
}

// modeGroup tells which of -v's options exclude one another.
func modeGroup(option string) string {
	switch option {
	case "ro", "rw":
		return "access"
	case "z", "Z":
		return "label"
	case "private", "rprivate", "slave", "rslave", "shared", "rshared":
		return "propagation"
	case "copy", "nocopy":
		return "copy"
	case "consistent", "cached", "delegated", "default":
		return "consistency"
	case "idmap", "noidmap":
		return "idmap"
	case "U":
		return "owner"
	}
	return ""
}

func validMode(mode string) bool {
	return !slices.ContainsFunc(strings.Split(mode, ","), func(o string) bool { return modeGroup(o) == "" })
}

func volumeMode(m *Mount, mode string) error {
	var seen []string
	for option := range strings.SplitSeq(mode, ",") {
		group := modeGroup(option)
		if group == "" || slices.Contains(seen, group) {
			return fmt.Errorf("invalid mode: %s", mode)
		}
		seen = append(seen, group)
		switch group {
		case "access":
			m.ReadOnly = option == "ro"
		case "label":
			m.Relabel = option
		case "propagation":
			m.Propagation = option
		case "copy":
			m.NoCopy = option == "nocopy"
		case "consistency":
			m.Consistency = option
		case "idmap":
			m.NoIDMap = option == "noidmap"
		case "owner":
			m.Own = true
		}
	}
	return nil
}

// ParseMount reads the value of --mount: comma-separated "key=value" fields, in
// double quotes where a value has a comma. A source that begins with "." is
// below cwd.
func ParseMount(spec, cwd string) (Mount, error) {
	spec = strings.TrimSpace(spec)
	if spec == "" {
		return Mount{}, errors.New("value is empty")
	}
	fields, err := splitCSV(spec)
	if err != nil {
		return Mount{}, err
	}
	m := Mount{Type: "volume", Option: "--mount", Text: spec}
	var kinds []string // "bind", "volume" … whose own options were given
	for _, field := range fields {
		key, value, has := strings.Cut(field, "=")
		if err := checkField(key, value, field, has); err != nil {
			return Mount{}, err
		}
		key = strings.ToLower(key)
		if err := mountField(&m, key, value, has, cwd); err != nil {
			return Mount{}, err
		}
		if kind, _, ok := strings.Cut(key, "-"); ok {
			kinds = append(kinds, kind)
		}
	}
	for _, kind := range kinds {
		if kind != m.Type {
			return Mount{}, fmt.Errorf("cannot mix '%s-*' options with mount type '%s'", kind, m.Type)
		}
	}
	if m.WritableBelow && m.ForceReadOnly {
		return Mount{}, errors.New("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
	}
	return m, checkMount(&m)
}

func checkField(key, value, field string, has bool) error {
	switch {
	case strings.TrimSpace(key) != key:
		return fmt.Errorf("invalid option '%s' in '%s': option should not have whitespace", strings.TrimSpace(key), field)
	case has && strings.TrimSpace(value) == "":
		return fmt.Errorf("invalid value for '%s': value is empty", key)
	case has && strings.TrimSpace(value) != value:
		return fmt.Errorf("invalid value for '%s' in '%s': value should not have whitespace", key, field)
	case !has && !slices.Contains([]string{"readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src", "idmap", "u", "chown"}, strings.ToLower(key)):
		return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
	}
	return nil
}

// mountField puts one field of --mount into m.
func mountField(m *Mount, key, value string, has bool, cwd string) error {
	var err error
	switch key {
	case "type":
		m.Type = strings.ToLower(value)
	case "source", "src":
		m.Source = value
		if strings.HasPrefix(value, ".") {
			m.Source = path.Join(cwd, value)
		}
	case "target", "dst", "destination":
		m.Target = value
	case "readonly", "ro":
		m.ReadOnly, err = fieldBool(key, value, has)
	case "consistency":
		m.Consistency = strings.ToLower(value)
	case "bind-propagation":
		m.Propagation = strings.ToLower(value)
	case "bind-nonrecursive":
		return errors.New("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")
	case "bind-recursive":
		return bindRecursive(m, value)
	case "bind-create-src":
		m.CreateSource, err = fieldBool(key, value, has)
	case "idmap":
		var on bool
		on, err = fieldBool(key, value, has)
		m.NoIDMap = !on
	case "u", "chown":
		m.Own, err = fieldBool(key, value, has)
	case "volume-subpath", "image-subpath":
		m.Subpath = value
	case "volume-nocopy":
		m.NoCopy, err = fieldBool(key, value, has)
	case "volume-label":
		m.Labels = setPair(m.Labels, value)
	case "volume-driver":
		m.Driver = value
	case "volume-opt":
		m.DriverOptions = setPair(m.DriverOptions, value)
	case "tmpfs-size":
		if m.TmpfsSize, err = ParseSize(value); err != nil || m.TmpfsSize < 0 {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
	case "tmpfs-mode":
		mode, e := strconv.ParseUint(value, 8, 12)
		if e != nil {
			return fmt.Errorf("invalid value for %s: %s", key, value)
		}
		m.TmpfsMode = uint32(mode)
	default:
		return fmt.Errorf("unknown option '%s' in '%s'", key, key+"="+value)
	}
	return err
}

func bindRecursive(m *Mount, value string) error {
	switch value {
	case "enabled":
	case "disabled":
		m.NonRecursive = true
	case "writable":
		m.WritableBelow = true
	case "readonly":
		m.ForceReadOnly = true
	default:
		return fmt.Errorf(`invalid value for bind-recursive: %s (must be "enabled", "disabled", "writable", or "readonly")`, value)
	}
	return nil
}

func fieldBool(key, value string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("invalid value for '%s': invalid boolean value (%q): must be one of \"true\", \"1\", \"false\", or \"0\" (default \"true\")", key, value)
	}
	return b, nil
}

func setPair(m map[string]string, pair string) map[string]string {
	if m == nil {
		m = map[string]string{}
	}
	key, value, _ := strings.Cut(pair, "=")
	m[key] = value
	return m
}

// ParseTmpfs reads the value of --tmpfs: "TARGET[:OPTION,…]".
func ParseTmpfs(spec string) (Mount, error) {
	target, options, _ := strings.Cut(spec, ":")
	m := Mount{Type: "tmpfs", Target: target, Option: "--tmpfs", Text: spec}
	for o := range strings.SplitSeq(options, ",") {
		if o == "" {
			continue
		}
		if !tmpfsOption(o) {
			return Mount{}, fmt.Errorf("invalid tmpfs option [%q]", o)
		}
		m.TmpfsOptions = append(m.TmpfsOptions, o)
	}
	return m, checkMount(&m)
}

// tmpfsOption reports whether a user may give option o to a tmpfs.
func tmpfsOption(o string) bool {
	key, value, has := strings.Cut(o, "=")
	if has {
		return value != "" && slices.Contains([]string{"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks", "mpol"}, key)
	}
	_, ok := opposite(o)
	return ok || modeGroup(o) == "propagation"
}

// opposite is the mount option that undoes o.
func opposite(o string) (string, bool) {
	switch o {
	case "ro":
		return "rw", true
	case "rw":
		return "ro", true
	case "sync":
		return "async", true
	case "async":
		return "sync", true
	case "relatime", "norelatime", "strictatime", "nostrictatime":
		return "", true
	}
	for _, flag := range []string{"suid", "dev", "exec", "atime", "diratime"} {
		switch o {
		case flag:
			return "no" + flag, true
		case "no" + flag:
			return flag, true
		}
	}
	return "", false
}

// mergeOptions lets later options win over earlier ones that they contradict
// or repeat.
func mergeOptions(options []string) []string {
	var merged []string
	for i, o := range options {
		later := options[i+1:]
		key, _, has := strings.Cut(o, "=")
		not, _ := opposite(o)
		beaten := slices.ContainsFunc(later, func(l string) bool {
			return l == o || l == not || has && strings.HasPrefix(l, key+"=") || modeGroup(o) == "propagation" && modeGroup(l) == "propagation"
		})
		if !beaten {
			merged = append(merged, o)
		}
	}
	return merged
}

// checkMount refuses what no container can have.
func checkMount(m *Mount) error {
	bad := func(format string, a ...any) error {
		return fmt.Errorf("invalid mount config for type %q: %w", m.Type, fmt.Errorf(format, a...))
	}
	if strings.ContainsRune(m.Source+m.Target+m.Subpath, 0) {
		return bad("a path has a zero byte")
	}
	switch {
	case m.Target == "":
		return errors.New("target is required")
	case path.Clean("/"+m.Target) == "/":
		return errors.New("invalid specification: destination can't be '/'")
	case !path.IsAbs(m.Target):
		return bad("invalid mount path: '%s' mount path must be absolute", m.Target)
	case m.Propagation != "" && modeGroup(m.Propagation) != "propagation":
		return bad("invalid propagation mode: %s", m.Propagation)
	case m.Subpath != "" && !local(m.Subpath):
		return bad("subpath must be a relative path within the volume")
	case m.Subpath != "" && m.Source == "":
		return bad("must not set Subpath when using anonymous volumes")
	}
	m.Target = path.Clean(m.Target)
	if err := checkProc(m); err != nil {
		return bad("%w", err)
	}
	switch m.Type {
	case "bind":
		if m.Source == "" {
			return bad("field Source must not be empty")
		}
		if !path.IsAbs(m.Source) {
			return bad("invalid mount path: '%s' mount path must be absolute", m.Source)
		}
	case "volume":
		if m.Source != "" && !validName(m.Source) {
			return fmt.Errorf("%q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", m.Source)
		}
	case "tmpfs":
		if m.Source != "" {
			return bad("field Source must not be specified")
		}
	case "image":
		if m.Source == "" {
			return bad("field Source must not be empty")
		}
	default:
		return bad("mount type unknown")
	}
	return nil
}

// checkProc keeps mounts out of /proc, but for the files that lxcfs and its
// kin replace: what is written to /proc must reach the kernel and nothing else
// (CVE-2019-16884).
func checkProc(m *Mount) error {
	below, inside := strings.CutPrefix(m.Target, "/proc/")
	switch {
	case m.Target == "/proc" && !(m.Type == "bind" && m.Source == "/proc"):
		return errors.New(`"/proc" can only be the host's /proc`)
	case !inside || m.Type == "bind" && slices.Contains([]string{"cpuinfo", "diskstats", "meminfo", "stat", "swaps", "uptime", "loadavg", "slabinfo",
		"net/dev", "sys/kernel/ns_last_pid", "sys/crypto/fips_enabled"}, below):
		return nil
	}
	return fmt.Errorf("%q cannot be mounted because it is inside /proc", m.Target)
}

// local reports whether p stays below where it starts.
func local(p string) bool {
	return !path.IsAbs(p) && p != ".." && !strings.HasPrefix(path.Clean(p), "../") && path.Clean(p) != ".."
}

// CheckName refuses a container's name that Docker would refuse.
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

func validName(name string) bool {
	for i, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(name) >= 2 && len(name) <= 255
}

// splitCSV splits one record of RFC 4180.
func splitCSV(s string) ([]string, error) {
	var fields []string
	for {
		field, rest, more, err := csvField(s)
		if err != nil {
			return nil, err
		}
		fields = append(fields, field)
		if !more {
			return fields, nil
		}
		s = rest
	}
}

func csvField(s string) (field, rest string, more bool, err error) {
	if !strings.HasPrefix(s, `"`) {
		field, rest, more = strings.Cut(s, ",")
		if strings.ContainsAny(field, "\"\r\n") {
			return "", "", false, errors.New(`parse error: bare " in non-quoted field`)
		}
		return field, rest, more, nil
	}
	var b strings.Builder
	for s = s[1:]; ; {
		head, tail, ok := strings.Cut(s, `"`)
		if !ok {
			return "", "", false, errors.New(`parse error: extraneous or missing " in quoted-field`)
		}
		b.WriteString(head)
		switch {
		case tail == "":
			return b.String(), "", false, nil
		case tail[0] == ',':
			return b.String(), tail[1:], true, nil
		case tail[0] != '"':
			return "", "", false, errors.New(`parse error: extraneous or missing " in quoted-field`)
		}
		b.WriteByte('"')
		s = tail[1:]
	}
}
