package heavy

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"kiste/cli"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/namespace"
	"kiste/store"
)

const (
	// insideVariable says to the child that it is root of a user namespace
	// with a "range" of ids, or with a "single" one.
	insideVariable = "KISTE_INSIDE"

	// waitVariable says that the namespace has no ids yet: they are there when
	// descriptor 3 ends.
	waitVariable = "KISTE_WAIT"
)

// inNamespace runs this very command line again, as root of a user namespace
// with the ids that the user may use. Root, unless it is nil, is given to it.
func inNamespace(env *cli.Env, s store.Store, root *os.File) error {
	uid, gid := os.Getuid(), os.Getgid()
	uids, gids, err := namespace.Subordinate(strconv.Itoa(uid))
	if err != nil {
		return err
	}
	inside := "range"
	if _, err := exec.LookPath("newuidmap"); err != nil || len(uids) == 0 || len(gids) == 0 {
		fmt.Fprintln(env.Err, "kiste: all files of the image get one owner, since this user has no subordinate ids (/etc/subuid, newuidmap)")
		inside, uids, gids = "single", nil, nil
	}
	ready, release, err := os.Pipe()
	if err != nil {
		return err
	}
	defer release.Close()
	sys.Timely() // containers would have its timers
	cmd := exec.Command(sys.SelfExe, os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = env.In, env.Stdout, env.Stderr
	cmd.ExtraFiles = []*os.File{ready}
	cmd.Env = append(os.Environ(), insideVariable+"="+inside, waitVariable+"=1", "KISTE_LIB="+s.Lib, "KISTE_RUN="+s.Run)
	if root != nil {
		defer root.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, root)
		cmd.Env = append(cmd.Env, rootVariable+"=4")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		ready.Close()
		return &fault.Error{Op: "create user namespace", Err: err, Hint: "kiste doctor tells what this host lacks"}
	}
	ready.Close()
	if err := namespace.WriteMaps(cmd.Process.Pid, namespace.RootMap(uint32(uid), uids), namespace.RootMap(uint32(gid), gids)); err != nil {
		return errors.Join(err, cmd.Process.Kill(), ignoreExit(cmd.Wait()))
	}
	release.Close()
	return asExit(cmd.Wait())
}

func ignoreExit(err error) error {
	if _, ok := err.(*exec.ExitError); ok {
		return nil
	}
	return err
}

// asExit makes the child's end this program's own: the child has said why.
func asExit(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &cli.ExitError{Code: exit.ExitCode()}
	}
	return err
}

// Settle is to be called first of all: a child of inNamespace waits for its ids
// and starts once more, since execve(2) gives root its capabilities only when
// there is a root. It returns in every other process.
func Settle() error {
	if os.Getenv(waitVariable) == "" {
		return nil
	}
	ready := os.NewFile(3, "ready")
	if _, err := ready.Read(make([]byte, 1)); err == nil {
		return errors.New("the user namespace was not prepared")
	}
	ready.Close()
	if err := os.Unsetenv(waitVariable); err != nil {
		return err
	}
	return sys.Exec(sys.SelfExe, os.Args)
}
