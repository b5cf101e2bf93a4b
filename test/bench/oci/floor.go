package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kiste/kernel/cgroup"
)

// The floor is what the kernel alone needs for such a container: its groups, namespaces
// and file systems, made without a runtime's care. How much it costs says little, since this is
// not a small program; how much more beside many containers and mounts is the kernel's part
// of what others take more.
//
//	floor ROOT          makes the groups, starts the other one, and removes them
//	floor ROOT TASKS…   enters the groups, mounts, and becomes /bin/true
const floorWord = "floor"

const floorFlags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS

// floor does what args say, and ends.
func floor(args []string) {
	err := errors.New("want a directory")
	switch {
	case len(args) == 1:
		err = floorAround(args[0])
	case len(args) > 1:
		err = floorInside(args[0], args[1:])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "floor:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// runFloor runs the floor of c's bundle.
func runFloor(c *contestant) error {
	null := c.null.Fd()
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"bench", floorWord, c.bundle.Root("")}, &syscall.ProcAttr{Env: c.environment, Files: []uintptr{null, null, c.errors.Fd()}})
	if err == nil {
		err = await(pid)
	}
	return c.told(err, floorWord)
}

func floorAround(root string) error {
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	layout, group, err := cgroup.For(layout, "", "bench-floor")
	if err != nil {
		return err
	}
	steps, err := cgroup.Compile(layout, group, cgroup.Limits{}, cgroup.Options{Account: true, Adopt: true, Join: []string{"name=systemd"}})
	if err != nil {
		return err
	}
	defer cgroup.Undo(steps)
	if err := cgroup.Do(steps); err != nil {
		return err
	}
	// Without a version 1 hierarchy there is nothing to write to: the group is made and removed.
	args := append([]string{"bench", floorWord, root}, append(cgroup.Tasks(steps), os.DevNull)...)
	pid, err := syscall.ForkExec("/proc/self/exe", args, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Cloneflags: floorFlags}})
	if err != nil {
		return err
	}
	return await(pid)
}

func floorInside(root string, tasks []string) error {
	runtime.LockOSThread()
	for _, file := range tasks {
		if err := os.WriteFile(file, []byte("0"), 0); err != nil {
			return err
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, m := range []struct{ fstype, at, data string }{
		{"", "", ""},
		{"proc", "proc", ""},
		{"tmpfs", "dev", "mode=755,size=65536k"},
		{"devpts", "dev/pts", "newinstance"},
		{"tmpfs", "dev/shm", "mode=1777,size=65536k"},
		{"mqueue", "dev/mqueue", ""},
		{"sysfs", "sys", ""},
	} {
		at, flags := filepath.Join(root, m.at), uintptr(0)
		if m.fstype == "" {
			flags = unix.MS_BIND | unix.MS_REC
		}
		if strings.HasPrefix(m.at, "dev/") {
			if err := os.Mkdir(at, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(root, at, m.fstype, flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	if _, err := unix.KeyctlJoinSessionKeyring("_ses.bench-floor"); err != nil {
		return fmt.Errorf("keyring: %w", err)
	}
	if err := errors.Join(unix.Chdir(root), unix.PivotRoot(".", "."), unix.Unmount(".", unix.MNT_DETACH)); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	return unix.Exec("/bin/true", []string{"true"}, nil)
}
