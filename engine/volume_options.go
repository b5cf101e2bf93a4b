package engine

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
	"kiste/kernel/chroot"
)

// checkVolumeName refuses a name in Docker's words.
func checkVolumeName(name string) error {
	refuse := func(format string, args ...any) error {
		return &fault.Error{Op: "create volume", On: name, Kind: fault.Invalid, Err: fmt.Errorf(format, args...)}
	}
	const allowed = "[a-zA-Z0-9][a-zA-Z0-9_.-]"
	if len(name) == 1 {
		return refuse("volume name is too short, names should be at least two alphanumeric characters")
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("_.-", r)) || len(name) > 200 {
			return refuse("%q includes invalid characters for a local volume name, only %q are allowed. If you intended to pass a host directory, use absolute path", name, allowed)
		}
	}
	return nil
}

// checkVolumeOptions refuses options that the local driver does not take, in
// Docker's words.
func checkVolumeOptions(o map[string]string) error {
	refuse := func(format string, args ...any) error {
		return &fault.Error{Op: "take volume options", Kind: fault.Invalid, Err: fmt.Errorf(format, args...), Hint: "type=, device=, o= and size= are possible: --opt type=tmpfs --opt device=tmpfs --opt o=size=100m"}
	}
	for _, key := range slices.Sorted(maps.Keys(o)) {
		if !slices.Contains([]string{"type", "device", "o", "size"}, key) {
			return refuse("invalid option: %q", key)
		}
	}
	for _, need := range []struct{ key, wants string }{{"type", "device"}, {"device", "type"}, {"o", "device"}, {"o", "type"}} {
		if _, given := o[need.key]; given && o[need.wants] == "" {
			return refuse("missing required option: %q", need.wants)
		}
	}
	if _, _, err := volumeSize(o); err != nil {
		return refuse("%v", err)
	}
	return nil
}

// volumeSize is the limit that the options set, in bytes: "size", or "o=size="
// of what is no file system of its own.
func volumeSize(o map[string]string) (size int64, limited bool, err error) {
	text := o["size"]
	if text == "" {
		return 0, false, nil
	}
	units := "bkmgtp"
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(text), "b"), "i")
	factor := int64(1)
	if i := strings.IndexByte(units, number[max(0, len(number)-1)]); i > 0 {
		number, factor = number[:len(number)-1], 1<<(10*i)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || n > (1<<60)/factor {
		return 0, false, errors.New("invalid size: '" + text[:min(len(text), 50)] + "'")
	}
	return n * factor, true, nil
}

// mount lets a container's mount be what a volume stands for. Of a file system of
// its own root has mounted it by now; an ordinary user's container mounts it for
// itself.
func (v *VolumeInfo) mount(m *specs.Mount) {
	switch {
	case v.binds():
		m.Type, m.Source = "bind", v.Options["device"]
		m.Options = append(slices.Clip(m.Options), slices.DeleteFunc(v.words(), isBind)...)
	case v.mounts() && os.Geteuid() != 0:
		m.Type, m.Source = v.Options["type"], v.Options["device"]
		m.Options = slices.DeleteFunc(slices.Clone(m.Options), func(o string) bool {
			return slices.Contains([]string{"bind", "rbind", "rprivate", "private"}, o)
		})
		m.Options = append(m.Options, v.words()...)
	default:
		m.Type, m.Source = "bind", v.Dir
	}
}

// Files is the directory with the volume's files. Not ok: there is none, since
// they are only where a container has the volume mounted.
func (v *VolumeInfo) Files() (dir string, ok bool) {
	switch {
	case v.Options["type"] == "":
		return v.Dir, true
	case v.binds():
		return v.Options["device"], true
	}
	return v.Dir, isMounted(v.Dir)
}

func (v *VolumeInfo) words() []string {
	return strings.FieldsFunc(v.Options["o"], func(r rune) bool { return r == ',' })
}

func (v *VolumeInfo) binds() bool { return slices.ContainsFunc(v.words(), isBind) }

func isBind(word string) bool { return word == "bind" || word == "rbind" }

// mounts reports whether it is a file system of its own.
func (v *VolumeInfo) mounts() bool { return v.Options["type"] != "" && !v.binds() }

// MountOn is a mount of the volume for who looks at the files of a container that
// does not run: bind, which is that of the volume's files, or the file system
// that it is of its own, where it is not mounted.
func (v *VolumeInfo) MountOn(bind chroot.Mount) chroot.Mount {
	if !v.mounts() || isMounted(v.Dir) || bind.Type == "" {
		return bind
	}
	return chroot.Mount{Type: v.Options["type"], Source: v.Options["device"], Target: bind.Target, Options: v.words()}
}
