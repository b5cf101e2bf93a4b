package sys

import (
	"os"
	"time"
)

// barrierLimit is how long systemd is waited for, as in sd_notify_barrier(3).
const barrierLimit = 30 * time.Second

// Notify sends messages to systemd's socket, as sd_notify(3) does, and waits until
// systemd has read them: then their sender may end. One that does not know
// barriers is not waited for for ever.
func Notify(socket string, messages ...string) error {
	systemd, err := ConnectUnix(socket, true)
	if err != nil {
		return err
	}
	defer systemd.Close()
	for _, m := range messages {
		if _, err := systemd.WriteString(m); err != nil {
			return err
		}
	}
	return barrier(systemd)
}

// barrier gives systemd one end of a pipe, which it closes when it has read all
// that was sent before.
func barrier(systemd *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	err = SendFDs(systemd, []byte("BARRIER=1"), int(w.Fd()))
	w.Close()
	if err != nil {
		return err
	}
	_ = r.SetReadDeadline(time.Now().Add(barrierLimit))
	_, _ = r.Read(make([]byte, 1))
	return nil
}
