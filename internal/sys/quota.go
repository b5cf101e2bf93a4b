package sys

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The words of quotactl_fd(2) that golang.org/x/sys has no names for:
// include/uapi/linux/dqblk_xfs.h, quota.h and fs.h.
const (
	getQuota, setLimit = 'X'<<8 + 3, 'X'<<8 + 4 // Q_XGETQUOTA, Q_XSETQLIM
	projectQuota       = 2                      // PRJQUOTA
	projectFlag        = 2                      // FS_PROJ_QUOTA
	blockLimits        = 1<<2 | 1<<3            // FS_DQ_BSOFT, FS_DQ_BHARD
	getAttributes      = 0x801c581f             // FS_IOC_FSGETXATTR
	setAttributes      = 0x401c5820             // FS_IOC_FSSETXATTR
	inheritProject     = 0x200                  // FS_XFLAG_PROJINHERIT
)

// diskQuota is struct fs_disk_quota. Blocks have 512 bytes.
type diskQuota struct {
	version, flags       int8
	fields               uint16
	id                   uint32
	blockHard, blockSoft uint64
	fileHard, fileSoft   uint64
	blocks, files        uint64
	_                    [56]byte
}

// fileAttributes is struct fsxattr.
type fileAttributes struct {
	flags, extent, extents, project, cow uint32
	_                                    [8]byte
}

// ProjectUsage tells the limit of a project on the file system that the open
// file fd lies on, and what its files take, in bytes. One that nobody has used
// has neither. A file system that has no such quotas is unix.ENOSYS,
// unix.ESRCH or unix.EINVAL.
func ProjectUsage(fd int, project uint32) (limit, used uint64, err error) {
	var q diskQuota
	err = quota(fd, getQuota, project, &q)
	if err == unix.ENOENT {
		return 0, 0, nil
	}
	return q.blockHard * 512, q.blocks * 512, named("quotactl_fd", err)
}

// LimitProject limits what the files of a project may take on the file system
// that fd lies on, in bytes; 0 is no limit. It needs CAP_SYS_ADMIN.
func LimitProject(fd int, project uint32, limit uint64) error {
	blocks := (limit + 511) / 512
	q := diskQuota{version: 1, flags: projectFlag, fields: blockLimits, id: project, blockHard: blocks, blockSoft: blocks}
	return named("quotactl_fd", quota(fd, setLimit, project, &q))
}

func quota(fd int, command uint, id uint32, q *diskQuota) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, uintptr(fd), uintptr(command<<8|projectQuota), uintptr(id), uintptr(unsafe.Pointer(q)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// SetProject makes the directory fd, and what will be made in it, part of a
// project: ioctl_fs(2), FS_IOC_FSSETXATTR.
func SetProject(fd int, project uint32) error {
	var a fileAttributes
	if err := fileIoctl(fd, getAttributes, &a); err != nil {
		return err
	}
	a.flags, a.project = a.flags|inheritProject, project
	return fileIoctl(fd, setAttributes, &a)
}

func fileIoctl(fd int, request uintptr, a *fileAttributes) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(a)))
	if errno != 0 {
		return named("ioctl of project", errno)
	}
	return nil
}
