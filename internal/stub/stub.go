// Package stub has the tiny programs that run inside containers, and outside
// above and beside what keeps and serves them: static ELF images of a few hundred
// bytes, made by an assembler of some forty lines per processor.
//
//	takes    a processor's name as Go has it: "amd64", "arm64"
//	gives    ELF images as bytes
//	touches  nothing
//	state    none
//
// Go's runtime has no place in a container: it would be the host's binary, in
// reach as /proc/self/exe (CVE-2019-5736), and megabytes per container. The
// programs are written once, as a list of instructions of a machine that
// either processor can be (see machine), and are their own listing.
//
// Safe for concurrent use.
package stub

import (
	"encoding/binary"
	"errors"

	"kiste/fault"
)

// Trampoline is the last program before a container's own:
//
//	argv[0] is the path to execute, argv[1:] the argv it gets, envp stays.
//
// It sets FD_CLOEXEC on descriptor fd and executes. When that fails it writes
// the errno as 4 bytes, little-endian, to descriptor fd and exits with 127.
// Run from a sealed memfd it is all that a container sees of its host in
// /proc/self/exe. A script may name that as its interpreter; where fd is not
// open the trampoline has so executed itself, says so on standard error, and
// exits with 126.
func Trampoline(arch string, fd int, l *Label) ([]byte, error) {
	return build(arch, trampoline(int32(fd), l))
}

// A Label is what a stub asks for just before it executes, so that the program
// is the first thing that has the label, and need not be allowed to those that
// have it already. It writes Wish, "exec " and a profile of AppArmor's, to the
// file exec in the directory FD: its own in procfs, attr/apparmor, since the
// kernel takes a wish only from who has opened the file (Linux 5.13). Where that
// fails Unlabelled is added to the errno that it says. Until then nobody may trace
// it but who has CAP_SYS_PTRACE in its user namespace. A nil Label is none.
type Label struct {
	FD   int
	Wish string
}

// Waiter is what a container is between create and start. Its argv is the
// trampoline's. It holds two FIFOs, descriptors fd and fd+1, sets FD_CLOEXEC on
// both, and waits for a byte from the first one; then it executes. When that
// fails it writes the errno as 4 bytes, little-endian, to the second one and
// exits with 127. Executed by itself it ends as the trampoline does. While it waits it has one page of code and one of stack.
func Waiter(arch string, fd int, l *Label) ([]byte, error) {
	return build(arch, waiter(int32(fd), l))
}

// Joiner is a trampoline that forks on its way, into a pid namespace that it has
// been told to enter: so nobody there sees more of the host than a stub. Its
// argv is the trampoline's. The first process forks with CLONE_PARENT and ends;
// the second one says hello on descriptor fd, waits for a byte there, begins a
// session, with terminal makes descriptor 0 its controlling terminal, and
// executes. Where it may not fork or begin a session it writes Refused and the
// errno, 4 bytes each, little-endian, and exits with 126.
func Joiner(arch string, fd int, terminal bool, l *Label) ([]byte, error) {
	return build(arch, joiner(int32(fd), terminal, l))
}

// Init is a first process that does a first process's duty, as tini(1) does:
// it starts argv[1:], looked up on $PATH, as a child in a process group of its
// own and in the foreground of the terminal on descriptor 0; reaps whatever
// ends; hands every signal on to the child; and exits with the child's code,
// or 128 and the signal that ended it, or 126 or 127 where the child could not
// be executed. A "--" before the command is passed over.
func Init(arch string) ([]byte, error) { return build(arch, initProgram) }

func build(arch string, program func(*assembler)) ([]byte, error) {
	for _, known := range machines {
		if known.name == arch {
			a := &assembler{m: known.make(), code: make([]byte, 0, 512), labels: map[string]int{}}
			program(a)
			return elf(a.m, a.link()), nil
		}
	}
	return nil, &fault.Error{Op: "make a program for", On: arch, Kind: fault.Unsupported, Err: errors.New("there is no assembler for it")}
}

const (
	base    = 0x400000
	headers = 64 + 2*56
)

// elf wraps code into an executable of one read-only segment and a stack that
// is not executable: elf(5).
func elf(m machine, code []byte) []byte {
	b := append(make([]byte, 0, headers+len(code)), "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"...)
	le := binary.LittleEndian
	b = le.AppendUint16(b, 2) // ET_EXEC
	b = le.AppendUint16(b, m.elf)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+headers) // entry
	b = le.AppendUint64(b, 64)           // program headers
	b = le.AppendUint64(b, 0)            // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{64, 56, 2, 64, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	size := uint64(headers + len(code))
	b = segment(b, 1, 5, base, size, 0x10000) // PT_LOAD, read and execute
	b = segment(b, 0x6474e551, 6, 0, 0, 16)   // PT_GNU_STACK, read and write
	return append(b, code...)
}

func segment(b []byte, kind, flags uint32, address, size, align uint64) []byte {
	le := binary.LittleEndian
	b = le.AppendUint32(b, kind)
	b = le.AppendUint32(b, flags)
	for _, v := range []uint64{0, address, address, size, size, align} {
		b = le.AppendUint64(b, v)
	}
	return b
}
