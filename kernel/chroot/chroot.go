// Package chroot gives a process another root: mounts as data, and the way
// into a directory that holds a system.
//
//	takes    a directory, mounts
//	gives    Mount, to be done or listed; Root, to be entered
//	touches  the mount namespace of the calling thread; mount points in the
//	         directory where they are missing
//	state    the kernel's; a Root's mounts end with its last process
//
// A Root is entered in a mount namespace of its own: the directory is mounted
// on itself, furnished with /proc, /sys, /dev, /run and /tmp as arch-chroot(8)
// does, made the root by pivot_root(2), and the old root is detached, so there
// is no way back and nothing to clean up. The tree may be hostile: every path
// in it is resolved with openat2(2) and RESOLVE_IN_ROOT and mounted on by
// descriptor.
//
// On the command line it is
//
//	kiste chroot run /mnt -- apt-get install grub-pc
//
// It does not hide processes or the network: see packages namespace and
// network. It needs CAP_SYS_ADMIN in the user namespace of the mount
// namespace; in a user namespace of one's own that is everybody.
package chroot
