package privilege

//go:generate go run generate.go

import (
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// syscallNumber finds name in one of the tables of syscalls_table.go. They
// are strings, searched where they lie, so that a start that needs none pays
// for none.
func syscallNumber(table, name string) (uint32, bool) {
	for len(table) > 0 {
		start := strings.LastIndexByte(table[:len(table)/2], '\n') + 1
		end := start + strings.IndexByte(table[start:], '\n')
		space := start + strings.IndexByte(table[start:end], ' ')
		switch strings.Compare(name, table[start:space]) {
		case 0:
			nr, err := strconv.ParseUint(table[space+1:end], 10, 32)
			return uint32(nr), err == nil
		case -1:
			table = table[:start]
		default:
			table = table[end+1:]
		}
	}
	return 0, false
}

// Syscall is the number of a system call on an architecture, named as
// runtime.GOARCH or "x32". It reports false for a name or an architecture that
// it does not know.
func Syscall(arch, name string) (uint32, bool) {
	return syscallNumber(syscallTable(arch), name)
}

func syscallTable(arch string) string {
	switch arch {
	case "amd64":
		return numbersAMD64
	case "x32":
		return numbersX32
	case "386":
		return numbers386
	case "arm64":
		return numbersARM64
	case "arm":
		return numbersARM
	case "riscv64":
		return numbersRISCV64
	case "loong64":
		return numbersLOONG64
	case "ppc64le":
		return numbersPPC64LE
	case "s390x":
		return numbersS390X
	}
	return ""
}

// muxed says how the old calls socketcall(2) and ipc(2) name what is also a
// call of its own: by their first argument.
func muxed(name string) (call string, argument uint64) {
	const sockets = "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom " +
		"shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg "
	const ipcs = "semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - shmat shmdt shmget shmctl "
	if n := wordNumber(sockets, name); n > 0 {
		return "socketcall", n
	}
	return "ipc", wordNumber(ipcs, name)
}

// wordNumber counts the words of list up to word, or is 0. Each word of list
// ends with a space.
func wordNumber(list, word string) uint64 {
	for n := uint64(1); list != ""; n++ {
		first, rest, _ := strings.Cut(list, " ")
		if first == word {
			return n
		}
		list = rest
	}
	return 0
}

// SyscallName is the name of a system call by its number, as Syscall has it.
func SyscallName(arch string, number uint32) (string, bool) {
	want := strconv.FormatUint(uint64(number), 10)
	for line := range strings.Lines(syscallTable(arch)) {
		if name, n, _ := strings.Cut(strings.TrimSpace(line), " "); n == want {
			return name, true
		}
	}
	return "", false
}

// Unlocks are the capabilities of which one in the bounding set lets a system
// call pass Docker's default profile, where caps does not: none where it passes
// with caps, or with no capability.
func Unlocks(call string, caps Caps, arch string) (names []string) {
	if passes(call, caps, arch) {
		return nil
	}
	for bit := range LastCap() + 1 {
		if c := Caps(1) << bit; !caps.Has(c) && passes(call, caps|c, arch) {
			names = append(names, c.Names()...)
		}
	}
	return names
}

// passes reports whether the default profile lets the call pass whatever its
// arguments are.
func passes(call string, caps Caps, arch string) bool {
	p, err := DefaultProfile(caps, arch)
	if err != nil {
		return false
	}
	for _, s := range p.Syscalls {
		if s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, call) {
			return true
		}
	}
	return false
}
