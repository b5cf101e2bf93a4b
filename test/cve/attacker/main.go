// Else Go keeps files of the cgroup open.
//
//go:debug containermaxprocs=0

// Command attacker is what a hostile image would run: it tries to get out, and
// prints a line that begins with GOT for everything that it should not have got.
// It is built into the bundles of test/cve.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// attacks are the ways: attacker NAME [ARGUMENT...].
var attacks = map[string]func(args []string){
	"descriptors": func([]string) { descriptors() },
	"cwd":         func([]string) { workingDirectory() },
	"look":        look,
	"swap":        swap,
	"remount":     func([]string) { remount() },
	"masked":      masked,
}

func main() {
	if len(os.Args) < 2 || attacks[os.Args[1]] == nil {
		fmt.Println("attacker: no such attack")
		os.Exit(2)
	}
	attacks[os.Args[1]](os.Args[2:])
	fmt.Println("done")
}

var said = map[string]bool{}

// got says what has been got, once.
func got(format string, args ...any) {
	if text := fmt.Sprintf("GOT "+format, args...); !said[text] {
		said[text] = true
		fmt.Println(text)
	}
}

// stopFile is what the test makes when an attacker is to end.
const stopFile = "/tmp/stop"

// until calls f over and over until the test has seen enough.
func until(f func()) {
	fmt.Println("ready")
	for n := 0; ; n++ {
		if n%64 == 0 {
			if _, err := os.Lstat(stopFile); err == nil {
				return
			}
		}
		f()
	}
}

// descriptors tells which files are open beside the streams.
func descriptors() {
	for fd := 3; fd < 1024; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			continue
		}
		target, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
		if !strings.HasPrefix(target, "anon_inode:[event") { // Go's own
			got("descriptor %d of %s", fd, target)
		}
	}
}

// workingDirectory climbs from where it is to the top, which must be the root.
func workingDirectory() {
	buffer := make([]byte, unix.PathMax)
	if n, err := unix.Getcwd(buffer); err != nil || buffer[0] != '/' {
		got("an unreachable working directory %q, %v", buffer[:max(n, 0)], err)
	}
	if here, top := climb("."), climb("/"); here != top {
		got("another root than the container's: %v, not %v", here, top)
	}
	if fd, err := unix.Open("/proc/self/cwd", unix.O_PATH, 0); err == nil {
		if here, top := climb("/proc/self/fd/"+strconv.Itoa(fd)), climb("/"); here != top {
			got("another root by /proc/self/cwd")
		}
	}
}

type place struct{ dev, ino uint64 }

func climb(from string) place {
	var now, above unix.Stat_t
	for path := from; unix.Stat(path, &now) == nil && unix.Stat(path+"/..", &above) == nil; path += "/.." {
		if now.Dev == above.Dev && now.Ino == above.Ino || len(path) > 3000 {
			break
		}
	}
	return place{now.Dev, now.Ino}
}

// look searches for a directory of the host, by the name of its mounts and by a
// file of it: look NAME MARKER.
func look(args []string) {
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range bytes.Lines(mounts) {
		if f := strings.Fields(string(line)); strings.Contains(f[3], args[0]) {
			got("%s of the host, on %s", f[3], f[4])
		}
	}
	filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err == nil && d.Name() == args[1]:
			got("the host's %s", path)
		case err == nil && d.IsDir() && (path == "/proc" || path == "/sys"):
			return fs.SkipDir
		}
		return nil
	})
	workingDirectory()
}

// swap exchanges pairs of names: swap A B [C D...].
func swap(args []string) {
	until(func() {
		for i := 0; i+1 < len(args); i += 2 {
			if err := unix.Renameat2(unix.AT_FDCWD, args[i], unix.AT_FDCWD, args[i+1], unix.RENAME_EXCHANGE); err != nil {
				fmt.Println(err)
			}
		}
		pause := unix.Timespec{Nsec: time.Now().UnixNano() % 150_000} // so that others can look names up
		unix.Nanosleep(&pause, nil)
	})
}

// remount tries to write below what has to be read-only.
func remount() {
	for _, dir := range []string{"/", "/etc", "/bin", "/proc/sys/kernel", "/sys"} {
		file := dir + "/written"
		err := os.WriteFile(file, nil, 0o644)
		if err == nil {
			os.Remove(file)
			got("to write in %s", dir)
		} else if !errors.Is(err, unix.EROFS) {
			fmt.Println(dir, err)
		}
	}
}

// masked tries to read what has to be hidden, and to write what has to be
// read-only, in each procfs: masked [DIR...].
func masked(args []string) {
	for _, proc := range append([]string{"/proc"}, args...) {
		for _, name := range []string{"keys", "timer_list", "sched_debug", "kcore"} {
			if fd, err := os.Open(proc + "/" + name); err == nil {
				if n, _ := fd.Read(make([]byte, 64)); n > 0 {
					got("to read %s/%s", proc, name)
				}
				fd.Close()
			}
		}
		for _, name := range []string{"sys/kernel/core_pattern", "sysrq-trigger", "sys/kernel/msgmax", "irq/default_smp_affinity"} {
			if fd, err := os.OpenFile(proc+"/"+name, os.O_WRONLY, 0); err == nil {
				fd.Close()
				got("to open %s/%s for writing", proc, name)
			}
		}
		for _, name := range []string{"scsi", "acpi"} {
			if files, _ := os.ReadDir(proc + "/" + name); len(files) > 0 {
				got("to list %s/%s", proc, name)
			}
		}
	}
	if files, _ := os.ReadDir("/sys/firmware"); len(files) > 0 {
		got("to list /sys/firmware")
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		var st unix.Stat_t
		if err := unix.Stat("/dev/"+name, &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFCHR && unix.Major(st.Rdev) != 1 {
			got("a device %d:%d as /dev/%s", unix.Major(st.Rdev), unix.Minor(st.Rdev), name)
		}
	}
}
