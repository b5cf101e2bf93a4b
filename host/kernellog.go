package host

import (
	"errors"
	"strings"
	"syscall"

	"kiste/fault"
	"kiste/internal/sys"
)

// Of the kernel's log: how much of it is read, and of one message.
const (
	mostMessages  = 1 << 16
	messageLength = 8 << 10
)

// KernelLog gives each message that the kernel's log has now, the oldest first,
// without its time. Where only root may read it the error is fault.Denied.
// Source: Documentation/ABI/testing/dev-kmsg.
func KernelLog(each func(text string)) error {
	fd, err := sys.OpenFile("/dev/kmsg", syscall.O_RDONLY|syscall.O_NONBLOCK)
	if err != nil {
		return &fault.Error{Op: "read the kernel's log", Err: err}
	}
	defer sys.Close(fd)
	b := make([]byte, messageLength)
	for range mostMessages {
		n, err := sys.Read(fd, b)
		switch {
		case errors.Is(err, syscall.EAGAIN) || err == nil && n <= 0:
			return nil
		case errors.Is(err, syscall.EPIPE): // what was next has been overwritten
		case err != nil:
			return &fault.Error{Op: "read the kernel's log", Err: err}
		default:
			each(messageOf(string(b[:n])))
		}
	}
	return nil
}

// messageOf is the text of a record: "PRIORITY,NUMBER,TIME,FLAGS;TEXT", and
// lines that begin with a space for programs.
func messageOf(record string) string {
	_, text, _ := strings.Cut(record, ";")
	text, _, _ = strings.Cut(text, "\n")
	return text
}

// Audits reports whether the kernel was built with audit, which then may still be
// off: proc_pid_loginuid(5).
func Audits() bool { return exists("/proc/self/loginuid") }
