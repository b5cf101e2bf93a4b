package sys

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// EarlyRead reads the go-ahead in dir as a start before Go's runtime does.
func EarlyRead(dir int) (pid int) { return earlyRead(dir) }

// EarlyDir is the directory that a start before Go's runtime goes to, by words
// without zeros; "": none.
func EarlyDir(root, id string) string {
	words := [2][]byte{append([]byte(root), 0), append([]byte(id), 0)}
	if !earlyDir(&words[0][0], &words[1][0]) {
		return ""
	}
	return unix.ByteSliceToString(earlyPath[:])
}

// KeepActions remembers what signals do, for restore to set again.
func KeepActions(signals []syscall.Signal) (restore func()) {
	before := make([]sigaction, len(signals))
	for i, s := range signals {
		sigact(s, nil, &before[i])
	}
	return func() {
		for i, s := range signals {
			sigact(s, &before[i], nil)
		}
	}
}
