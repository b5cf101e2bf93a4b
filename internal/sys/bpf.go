package sys

import (
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// BPF is one instruction: opcode, registers, jump offset, number.
// Source: Documentation/bpf/standardization/instruction-set.rst.
func BPF(op uint8, dst, src uint8, off int16, imm int32) uint64 {
	return uint64(op) | uint64(src<<4|dst)<<8 | uint64(uint16(off))<<16 | uint64(uint32(imm))<<32
}

// bpfAttr is union bpf_attr. Calls always pass the whole of it: kernels 6.17
// to 7.1 write past a shorter one in BPF_PROG_QUERY. Kernels that know less
// accept the zeros behind.
type bpfAttr [256]byte

func (a *bpfAttr) u32(at int, v uint32) { binary.NativeEndian.PutUint32(a[at:], v) }
func (a *bpfAttr) u64(at int, v uint64) { binary.NativeEndian.PutUint64(a[at:], v) }

func bpf(name string, cmd int, a *bpfAttr) (int, error) {
	r, _, errno := unix.Syscall(unix.SYS_BPF, uintptr(cmd), uintptr(unsafe.Pointer(a)), unsafe.Sizeof(*a))
	runtime.KeepAlive(a)
	if errno != 0 {
		return -1, os.NewSyscallError(name, errno)
	}
	return int(r), nil
}

// BPFLoad is bpf(2) BPF_PROG_LOAD of a program of type kind (unix.BPF_PROG_TYPE_)
// for the attach point expected, with a name of at most 15 bytes. Instructions are
// 8 bytes each, see BPF. The descriptor is the caller's to close. The verifier
// answers EAGAIN while a signal is pending, as one of Go's scheduler may be: signals
// are held back meanwhile, and it is asked again, at most 100 times.
func BPFLoad(kind, expected uint32, instructions []uint64, license, name string) (int, error) {
	var a bpfAttr
	l := append([]byte(license), 0)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&l[0])
	pin.Pin(&instructions[0])
	a.u32(0, kind)
	a.u32(4, uint32(len(instructions)))
	a.u64(8, uint64(uintptr(unsafe.Pointer(&instructions[0]))))
	a.u64(16, uint64(uintptr(unsafe.Pointer(&l[0]))))
	copy(a[48:63], name)
	a.u32(68, expected)
	release := holdSignals()
	defer release()
	for tries := 1; ; tries++ {
		fd, err := bpf("bpf load", unix.BPF_PROG_LOAD, &a)
		if tries == 100 || !errors.Is(err, unix.EAGAIN) {
			return fd, err
		}
	}
}

// holdSignals keeps signals from this thread until release, as far as the
// kernel lets it.
func holdSignals() (release func()) {
	runtime.LockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before)
	return func() {
		if err == nil {
			unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
		}
		runtime.UnlockOSThread()
	}
}

// BPFAttach is bpf(2) BPF_PROG_ATTACH to the cgroup directory dirfd; with
// unix.BPF_F_REPLACE in the place of the program replace.
func BPFAttach(dirfd, prog int, kind, flags uint32, replace int) error {
	var a bpfAttr
	a.u32(0, uint32(dirfd))
	a.u32(4, uint32(prog))
	a.u32(8, kind)
	a.u32(12, flags)
	a.u32(16, uint32(replace))
	_, err := bpf("bpf attach", unix.BPF_PROG_ATTACH, &a)
	return err
}

// BPFDetach is bpf(2) BPF_PROG_DETACH.
func BPFDetach(dirfd, prog int, kind uint32) error {
	var a bpfAttr
	a.u32(0, uint32(dirfd))
	a.u32(4, uint32(prog))
	a.u32(8, kind)
	_, err := bpf("bpf detach", unix.BPF_PROG_DETACH, &a)
	return err
}

// BPFQuery is bpf(2) BPF_PROG_QUERY: the ids of at most 64 programs attached
// to the cgroup directory dirfd itself.
func BPFQuery(dirfd int, kind uint32) ([]uint32, error) {
	ids := make([]uint32, 64)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	var a bpfAttr
	a.u32(0, uint32(dirfd))
	a.u32(4, kind)
	a.u64(16, uint64(uintptr(unsafe.Pointer(&ids[0]))))
	a.u32(24, uint32(len(ids)))
	if _, err := bpf("bpf query", unix.BPF_PROG_QUERY, &a); err != nil {
		return nil, err
	}
	return ids[:min(int(binary.NativeEndian.Uint32(a[24:])), len(ids))], nil
}

// BPFByID is bpf(2) BPF_PROG_GET_FD_BY_ID. The descriptor is the caller's to
// close.
func BPFByID(id uint32) (int, error) {
	var a bpfAttr
	a.u32(0, id)
	return bpf("bpf program by id", unix.BPF_PROG_GET_FD_BY_ID, &a)
}

// BPFMaps is bpf(2) BPF_OBJ_GET_INFO_BY_FD of a program: the ids of at most 8 maps
// that it uses.
func BPFMaps(prog int) ([]uint32, error) {
	const size, count, list = 64, 52, 56 // of struct bpf_prog_info: as much as is asked for, and where
	ids, info := make([]uint32, 8), make([]byte, size)
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&ids[0])
	pin.Pin(&info[0])
	binary.NativeEndian.PutUint32(info[count:], uint32(len(ids)))
	binary.NativeEndian.PutUint64(info[list:], uint64(uintptr(unsafe.Pointer(&ids[0]))))
	var a bpfAttr
	a.u32(0, uint32(prog))
	a.u32(4, size)
	a.u64(8, uint64(uintptr(unsafe.Pointer(&info[0]))))
	if _, err := bpf("bpf info", unix.BPF_OBJ_GET_INFO_BY_FD, &a); err != nil {
		return nil, err
	}
	return ids[:min(int(binary.NativeEndian.Uint32(info[count:])), len(ids))], nil
}

// BPFArray is bpf(2) BPF_MAP_CREATE of an array of so many values, each of the size
// in bytes. The descriptor is the caller's to close.
func BPFArray(value, count uint32, name string) (int, error) {
	const key = 4
	var a bpfAttr
	a.u32(0, unix.BPF_MAP_TYPE_ARRAY)
	a.u32(4, key)
	a.u32(8, value)
	a.u32(12, count)
	copy(a[28:43], name)
	return bpf("bpf map", unix.BPF_MAP_CREATE, &a)
}

// BPFMapByID is bpf(2) BPF_MAP_GET_FD_BY_ID. The descriptor is the caller's to
// close.
func BPFMapByID(id uint32) (int, error) {
	var a bpfAttr
	a.u32(0, id)
	return bpf("bpf map by id", unix.BPF_MAP_GET_FD_BY_ID, &a)
}

// BPFPut is bpf(2) BPF_MAP_UPDATE_ELEM of the array: it has value at index from now on.
func BPFPut(array int, index uint32, value []byte) error {
	return bpfElement("bpf map update", unix.BPF_MAP_UPDATE_ELEM, array, index, value)
}

// BPFGet is bpf(2) BPF_MAP_LOOKUP_ELEM of the array, into value.
func BPFGet(array int, index uint32, value []byte) error {
	return bpfElement("bpf map lookup", unix.BPF_MAP_LOOKUP_ELEM, array, index, value)
}

func bpfElement(name string, cmd, array int, index uint32, value []byte) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	pin.Pin(&index)
	pin.Pin(&value[0])
	var a bpfAttr
	a.u32(0, uint32(array))
	a.u64(8, uint64(uintptr(unsafe.Pointer(&index))))
	a.u64(16, uint64(uintptr(unsafe.Pointer(&value[0]))))
	_, err := bpf(name, cmd, &a)
	return err
}
