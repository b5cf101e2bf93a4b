package sys

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keys of the auxiliary vector: getauxval(3), linux/auxvec.h.
const (
	atHeaders    = 3 // the address of the program's headers
	atHeaderSize = 4
	atHeaderLen  = 5 // how many there are
)

// Of a program's header: elf(5).
const (
	headerLoad     = 1 // a segment of the file that is mapped
	headerTable    = 6 // the headers themselves
	headerWritable = 2 // of its flags
)

// A programHeader is Elf64_Phdr of elf(5).
type programHeader struct {
	kind, flags                 uint32
	_, address, _, inFile, _, _ uint64
}

// A segment is a part of this program's file in memory, in whole pages.
type segment struct{ begin, length uintptr }

// readOnlySegments are the parts of this program's file that it cannot write to,
// its code and its constants, as the kernel has mapped them.
func readOnlySegments() (all []segment) {
	vector, err := unix.Auxv()
	if err != nil {
		return nil
	}
	known := map[uintptr]uintptr{}
	for _, v := range vector {
		known[v[0]] = v[1]
	}
	at := known[atHeaders]
	if at == 0 || known[atHeaderSize] != unsafe.Sizeof(programHeader{}) {
		return nil
	}
	headers := unsafe.Slice(*(**programHeader)(unsafe.Pointer(&at)), known[atHeaderLen])
	page, moved := uintptr(unix.Getpagesize()), uintptr(0)
	for _, h := range headers {
		switch {
		case h.kind == headerTable:
			moved = at - uintptr(h.address) // of a program that may lie anywhere
		case h.kind == headerLoad && h.flags&headerWritable == 0:
			begin := (uintptr(h.address) + moved + page - 1) &^ (page - 1)
			end := (uintptr(h.address+h.inFile) + moved) &^ (page - 1)
			if begin < end {
				all = append(all, segment{begin, end - begin})
			}
		}
	}
	return all
}

// piece is how much of the program is mapped at most for what is needed again, in
// bytes: as much as an area of the address space that is all of one kind.
const piece = 64 << 10

// divide makes areas of pieces, by saying of every second one what holds for all
// (MADV_NOHUGEPAGE: no large page is wanted there). For Linux 6.18 maps as much as
// the page cache has as one page and the area goes on, which may be two megabytes.
func divide() {
	for _, s := range readOnlySegments() {
		for at := uintptr(0); at < s.length; at += 2 * piece {
			_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, s.begin+at, min(piece, s.length-at), unix.MADV_NOHUGEPAGE)
		}
	}
}

var divided sync.Once

// ReleaseProgram lets the kernel forget where this program's code and constants
// are in memory (MADV_DONTNEED in madvise(2)): they do not count as memory of this
// process any more. They stay in the page cache, like any file that was read, as
// long as the kernel has room. What is needed again costs a minor fault for a
// piece at most; what the kernel has dropped meanwhile is read from the file.
// Nothing can be lost, as nothing can have been written there, but for the
// breakpoints of a debugger. It is best effort.
func ReleaseProgram() {
	divided.Do(divide)
	for _, s := range readOnlySegments() {
		_, _, _ = unix.RawSyscall(unix.SYS_MADVISE, s.begin, s.length, unix.MADV_DONTNEED)
	}
}
