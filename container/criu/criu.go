// Package criu asks CRIU, a program of the host, to save processes in files and
// to let them go on from there.
//
//	takes    CRIU's options, the directories of images and of logs
//	gives    what CRIU answers; its notices while it works
//	touches  what CRIU touches: processes, mounts, namespaces, files of images
//	state    the images
//
// CRIU is run as "criu swrk 3" and spoken to by protocol buffers on a socket
// (criu.org/RPC); the messages are those of go-criu, whose client hands no
// descriptors on. On the command line it is
//
//	criu dump --tree PID --images-dir DIR; criu restore --images-dir DIR
//
// Root. Safe for concurrent use.
package criu

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/checkpoint-restore/go-criu/v8/rpc"

	"kiste/fault"
	"kiste/internal/sys"
)

// A Notice is a word of CRIU's while it works: "post-restore" for instance, with
// the process it speaks of. Console is the master of a terminal, for
// "orphan-pts-master".
type Notice struct {
	Script  string
	PID     int
	Console *os.File
}

// A Job is one request.
type Job struct {
	Kind    rpc.CriuReqType
	Options *rpc.CriuOpts

	// Images and Work are directories: of the images, and of CRIU's log.
	Images, Work *os.File

	// Inherit are descriptors of this process that take the place of those
	// with the given names.
	Inherit []Inherited

	// Status, if not nil, gets a zero byte when CRIU waits for lazy pages.
	Status *os.File

	// Started hears of CRIU's own process, before it is asked anything.
	Started func(pid int) error

	// Notify hears of notices; its error ends the work.
	Notify func(Notice) error
}

// An Inherited descriptor has a name in the images.
type Inherited struct {
	Key  string
	File *os.File
}

// The first descriptors that CRIU gets.
const (
	socketFD       = 3
	firstInherited = 4
)

// maxMessage is what one message of CRIU may have: it never has a kilobyte.
const maxMessage = 64 << 10

// Do carries out a job.
func (j *Job) Do() error {
	path, err := exec.LookPath("criu")
	if err != nil {
		return &fault.Error{Op: "run criu", Kind: fault.Unsupported, Err: errors.New("it is not installed"), Hint: "install criu"}
	}
	ours, theirs, err := sys.SeqPair()
	if err != nil {
		return err
	}
	defer ours.Close()
	sys.Timely()
	cmd := exec.Command(path, "swrk", fmt.Sprint(socketFD))
	cmd.ExtraFiles = j.files(theirs)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return &fault.Error{Op: "run criu", On: path, Err: err}
	}
	err = j.talk(ours, cmd.Process.Pid)
	ours.Close()
	if err != nil {
		cmd.Process.Kill()
	}
	// CRIU's own end says nothing that its answer has not said. Its
	// descriptors may be those of the restored processes, so its output is
	// not waited for.
	_, _ = cmd.Process.Wait()
	if err != nil {
		return j.explain(err, said.String())
	}
	return nil
}

// files are the descriptors that CRIU gets, and puts their numbers into the
// options. Directories it opens itself, by their numbers in this process.
func (j *Job) files(socket *os.File) []*os.File {
	files := []*os.File{socket}
	o := j.Options
	o.ImagesDirFd, o.WorkDirFd = number(int(j.Images.Fd())), number(int(j.Work.Fd()))
	if j.Status != nil {
		o.StatusFd = number(int(j.Status.Fd()))
	}
	for n, i := range j.Inherit {
		files = append(files, i.File)
		o.InheritFd = append(o.InheritFd, &rpc.InheritFd{Key: &i.Key, Fd: number(firstInherited + n)})
	}
	return files
}

func number(n int) *int32 {
	v := int32(n)
	return &v
}

// talk asks, and answers notices, until CRIU has answered.
func (j *Job) talk(socket *os.File, pid int) error {
	if j.Started != nil {
		if err := j.Started(pid); err != nil {
			return err
		}
	}
	yes := true
	j.Options.NotifyScripts = &yes
	request := &rpc.CriuReq{Type: &j.Kind, Opts: j.Options}
	for {
		b, err := request.MarshalVT()
		if err == nil {
			_, err = socket.Write(b)
		}
		if err != nil {
			return err
		}
		answer, console, err := receive(socket)
		if err != nil {
			return err
		}
		notify := rpc.CriuReqType_NOTIFY
		switch {
		case !answer.GetSuccess():
			closeFile(console)
			return fmt.Errorf("criu failed: type %s errno %d", nameOf(j.Kind), answer.GetCrErrno())
		case answer.GetType() != notify:
			closeFile(console)
			return nil
		}
		n := answer.GetNotify()
		if err := j.hear(Notice{Script: n.GetScript(), PID: int(n.GetPid()), Console: console}); err != nil {
			return err
		}
		request = &rpc.CriuReq{Type: &notify, NotifySuccess: &yes}
	}
}

// nameOf is what the kind's String method says, which nobody may call: the linker
// would keep a map for it, which every start of the program would fill.
func nameOf(kind rpc.CriuReqType) string {
	switch kind {
	case rpc.CriuReqType_DUMP:
		return "DUMP"
	case rpc.CriuReqType_PRE_DUMP:
		return "PRE_DUMP"
	case rpc.CriuReqType_RESTORE:
		return "RESTORE"
	}
	return strconv.Itoa(int(kind))
}

func (j *Job) hear(n Notice) error {
	if j.Notify == nil {
		closeFile(n.Console)
		return nil
	}
	return j.Notify(n)
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// receive reads one message, with a descriptor if it has one.
func receive(socket *os.File) (*rpc.CriuResp, *os.File, error) {
	b := make([]byte, maxMessage)
	n, fds, err := sys.ReceiveFDs(socket, b)
	if err != nil {
		return nil, nil, err
	}
	var console *os.File
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "console")
		if i > 0 {
			f.Close()
			continue
		}
		console = f
	}
	if n == 0 {
		closeFile(console)
		return nil, nil, errors.New("criu ended without an answer")
	}
	var r rpc.CriuResp
	if err := r.UnmarshalVT(b[:n]); err != nil {
		closeFile(console)
		return nil, nil, fmt.Errorf("criu's answer cannot be read: %w", err)
	}
	return &r, console, nil
}

// explain adds what CRIU's log says.
func (j *Job) explain(err error, said string) error {
	f := &fault.Error{Op: "save or restore by criu", Err: err}
	if j.Options.LogFile == nil {
		return f
	}
	log := filepath.Join(j.Work.Name(), *j.Options.LogFile)
	f.Hint = "criu's log is " + log
	if line := firstError(log); line != "" {
		f.Err = fmt.Errorf("%w: %s", err, line)
	} else if said = strings.TrimSpace(said); said != "" {
		f.Err = fmt.Errorf("%w: %s", err, said)
	}
	return f
}

// firstError is the first line of an error in CRIU's log, but for one that CRIU
// goes on after.
func firstError(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if _, text, ok := strings.Cut(lines.Text(), "Error "); ok && !strings.Contains(text, " rlimit: ") {
			return text
		}
	}
	return ""
}
