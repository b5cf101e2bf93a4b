package sys

import "syscall"

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
