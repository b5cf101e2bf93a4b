package engine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"kiste/fault"
	"kiste/image/snapshot"
	"kiste/internal/sys"
	"kiste/kernel/chroot"
	"kiste/kernel/network"
	"kiste/store"
)

// volumeUsers is a directory beside the files of a volume that is a file system
// of its own: a file for each container that has it, by id. While there is one
// that runs it is mounted on _data, as with Docker; the last one unmounts it, or
// after a kill the next one, "rm" or "gc".
const volumeUsers = "users"

// attach mounts a volume for a container, and fills one that is empty from the
// image. Whoever calls holds the container.
func (v *VolumeInfo) attach(e *Engine, id string, f filling) error {
	home := filepath.Dir(v.Dir)
	lock, err := store.LockDir(home, true)
	if err != nil {
		return err
	}
	defer lock.Unlock()
	users := filepath.Join(home, volumeUsers)
	if err := os.MkdirAll(users, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(users, id), nil, 0o600); err != nil {
		return err
	}
	if !isMounted(v.Dir) {
		m := chroot.Mount{Type: v.Options["type"], Source: v.Options["device"], Target: v.Dir, Options: v.words()}
		err := addressed(m, e.addressOf)
		if err == nil {
			err = m.Do()
		}
		if err != nil {
			e.detach(home, id)
			return &fault.Error{Op: "mount volume", On: v.Name, Kind: fault.KindOf(err),
				Err:  fmt.Errorf("failed to mount local volume: mount %s:%s, data: %s: %w", m.Source, v.Dir, v.Options["o"], plainCause(err)),
				Hint: "look at its options: kiste volume inspect " + v.Name}
		}
	}
	if len(f.lower) == 0 || !isEmpty(v.Dir) {
		return nil
	}
	if _, err := snapshot.Copy(f.lower, f.from, v.Dir); err != nil {
		e.detach(home, id)
		return fillError(v.Name, err)
	}
	return nil
}

// addressed lets addr= of nfs and cifs be an address where it is a name, as Docker
// does: the kernel knows no names.
func addressed(m chroot.Mount, addressOf func(name string) (network.Addr, error)) error {
	if m.Type != "nfs" && m.Type != "nfs4" && m.Type != "cifs" {
		return nil
	}
	for i, word := range m.Options {
		name, ok := strings.CutPrefix(word, "addr=")
		if !ok {
			continue
		}
		if _, err := network.ParseAddr(name); err == nil {
			continue
		}
		address, err := addressOf(name)
		if err != nil {
			return err
		}
		m.Options[i] = "addr=" + address.String()
	}
	return nil
}

// addressOf is the address of a host, of IPv4 where it has one. The port is any: a
// socket of UDP is connected without a word to anybody.
func (e *Engine) addressOf(name string) (network.Addr, error) {
	socket, err := e.connect("udp4", name+":9")
	if err != nil {
		socket, err = e.connect("udp6", name+":9")
	}
	if err != nil {
		return network.Addr{}, err
	}
	defer socket.Close()
	raw, err := sys.Peer(int(socket.Fd()))
	address, _ := network.AddrFromSlice(raw)
	return address, err
}

func plainCause(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}

// isMounted reports whether something is mounted on a directory.
func isMounted(dir string) bool {
	d, err := os.Open(filepath.Dir(dir))
	if err != nil {
		return false
	}
	defer d.Close()
	above, err1 := sys.MountID(int(d.Fd()), "")
	here, err2 := sys.MountID(int(d.Fd()), filepath.Base(dir))
	return err1 == nil && err2 == nil && above != here
}

// release gives the volumes of a container back.
func (e *Engine) release(id string, c *Container) {
	for _, name := range c.VolumeNames {
		e.releaseVolume(filepath.Dir(e.Store.Volume(name)), id)
	}
}

// releaseVolume unmounts a volume that no container has any more but, perhaps,
// id. Of a volume that is no file system of its own nothing is done.
func (e *Engine) releaseVolume(home, id string) {
	if _, err := os.Lstat(filepath.Join(home, volumeUsers)); err != nil {
		return
	}
	lock, err := store.LockDir(home, true)
	if err != nil {
		return
	}
	defer lock.Unlock()
	e.detach(home, id)
}

// detach is releaseVolume for who has the lock.
func (e *Engine) detach(home, id string) {
	users := filepath.Join(home, volumeUsers)
	entries, err := os.ReadDir(users)
	if err != nil {
		return
	}
	left := 0
	for _, u := range entries {
		if u.Name() == id || !e.running(u.Name()) {
			os.Remove(filepath.Join(users, u.Name()))
			continue
		}
		left++
	}
	data := filepath.Join(home, "_data")
	if left == 0 && (!isMounted(data) || sys.Unmount(data, unmountDetach) == nil) {
		os.Remove(users)
	}
}

// unmountDetach is MNT_DETACH of umount2(2): what a process of the host still has
// open there stays for it.
const unmountDetach = 2
