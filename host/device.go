package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"kiste/fault"
)

// A Device is a node of a character or block device.
type Device struct {
	Path         string
	Type         string // "c" or "b"
	Major, Minor int64
	Mode         fs.FileMode // permission bits
	UID, GID     uint32
}

// The bounds of what Devices walks through.
const (
	maxDevices = 16384
	maxDepth   = 8
)

// Devices is the device at path, through symbolic links, or all devices below
// the directory at path: without those of mounts of their own (pts, shm,
// mqueue) and without symbolic links, as Docker's --device takes them. A
// directory without one is fault.NotFound.
func Devices(path string) ([]Device, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if d, ok := device(path, info); ok {
		return []Device{d}, nil
	}
	if !info.IsDir() {
		return nil, &fault.Error{Op: "use device", On: path, Kind: fault.Invalid, Err: errors.New("not a device node")}
	}
	found, err := devicesBelow(path, nil, maxDepth)
	if err == nil && len(found) == 0 {
		err = &fault.Error{Op: "use device", On: path, Kind: fault.NotFound, Err: errors.New("there is no device in it")}
	}
	return found, err
}

func devicesBelow(dir string, found []Device, depth int) ([]Device, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.IsDir() {
			if depth == 0 || slices.Contains([]string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}, e.Name()) {
				continue
			}
			if found, err = devicesBelow(path, found, depth-1); err != nil {
				return nil, err
			}
			continue
		}
		if e.Type()&fs.ModeDevice == 0 || e.Name() == "console" {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was unplugged
		}
		if err != nil {
			return nil, err
		}
		if d, ok := device(path, info); ok {
			found = append(found, d)
		}
		if len(found) > maxDevices {
			return nil, &fault.Error{Op: "use device", On: dir, Kind: fault.Invalid, Err: errors.New("too many devices")}
		}
	}
	return found, nil
}

// device reads what a node says about itself. The number's form is that of
// makedev(3).
func device(path string, info fs.FileInfo) (Device, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode()&fs.ModeDevice == 0 {
		return Device{}, false
	}
	kind := "b"
	if info.Mode()&fs.ModeCharDevice != 0 {
		kind = "c"
	}
	n := uint64(st.Rdev)
	return Device{
		Path: path, Type: kind, Mode: info.Mode().Perm(), UID: st.Uid, GID: st.Gid,
		Major: int64(n>>8&0xfff | n>>32&^0xfff), Minor: int64(n&0xff | n>>12&0xffffff00),
	}, true
}

// Thermal lists this host's thermal_throttle directories, from which a
// container could learn what others compute (GHSA-6fw5-f8r9-fgfm). CPUs have
// them all or none.
func Thermal() []string {
	var paths []string
	for cpu := 0; ; cpu++ {
		path := "/sys/devices/system/cpu/cpu" + strconv.Itoa(cpu) + "/thermal_throttle"
		if !exists(path) {
			return paths
		}
		paths = append(paths, path)
	}
}
