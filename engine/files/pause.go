package files

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"kiste/engine"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
)

// PauseCommand is the hidden command that calls Pause.
const PauseCommand = "__pause"

// freezing is how long the processes of a container are waited for.
const freezing = 10 * time.Second

// still is what Pause says when nothing runs any more.
const still = "still"

// pause lets the processes of a container that runs stand still, if there is a
// group to stop, until thaw. Another process does it, which lets them go on also
// when this one is killed.
func pause(c *engine.Container) (thaw func(), err error) {
	nothing := func() {}
	if c.State.Status != "running" || c.Cgroup == "" {
		return nothing, nil
	}
	cmd := exec.Command(sys.SelfExe, PauseCommand, c.Cgroup)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // no signal of the terminal ends it
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		return nothing, err
	}
	thaw = func() {
		in.Close()
		cmd.Wait()
	}
	line, err := bufio.NewReader(io.LimitReader(out, 4096)).ReadString('\n')
	if line = strings.TrimSpace(line); line == still {
		return thaw, nil
	}
	thaw()
	if line != "" {
		err = errors.New(line)
	}
	return nothing, &fault.Error{Op: "pause container", On: c.Name, Kind: fault.Unavailable, Err: err, Hint: "kiste commit --pause=false does not pause it"}
}

// Pause freezes a cgroup, says so to out, and thaws it when in ends. A group that
// cannot be frozen is none to wait for.
func Pause(group string, in io.Reader, out io.Writer) error {
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := cgroup.Open(l, group)
	if err != nil {
		return err
	}
	if g.Frozen() { // somebody else has, and lets it go on
		return wait(in, out)
	}
	ctx, stop := context.WithTimeout(context.Background(), freezing)
	defer stop()
	err = g.Freeze(ctx)
	if fault.KindOf(err) == fault.Unsupported {
		return wait(in, out)
	}
	if err != nil {
		return err
	}
	err = wait(in, out)
	return errors.Join(err, g.Thaw(context.Background()))
}

// wait says that it is done, and waits for the end of in.
func wait(in io.Reader, out io.Writer) error {
	_, err := io.WriteString(out, still+"\n")
	_, _ = io.Copy(io.Discard, in)
	return err
}
