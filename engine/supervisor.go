package engine

import (
	"encoding/binary"
	"errors"
	"maps"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"kiste/container/monitor"
	"kiste/container/process"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/store"
)

// A supervisor is the monitor at work: it starts the containers that last, keeps
// them, writes their ends down, and starts those again whose policy says so.
type supervisor struct {
	e        *Engine
	listener *os.File
	limit    [2]uint64 // of open files, as it was

	mu   sync.Mutex
	kept map[string]*keeping
	busy int           // requests under way
	ends map[int]word  // whom the guard has seen end
	told chan struct{} // closed when ends has grown
	idle chan struct{} // something has ended

	resting atomic.Bool   // rest is to hear of output
	flows   chan struct{} // with which it does
	flowed  atomic.Bool   // some has passed since it looked

	unwritten map[string]monitor.End // of containers whose end could not be written down
	retrying  bool                   // somebody looks again and again, because of these and of what lies aside

	services map[*Service]*serviceKeeper
	rules    sync.Once     // they are watched
	sharing  atomic.Bool   // the shared namespace is watched
	first    chan struct{} // closed when somebody's request has been answered
	served   sync.Once     // of that
	looked   atomic.Bool   // all containers have been looked at

	brief map[string]bool // whose documents a power cut could still take
}

// A keeping is a container that is kept, or waits to be started anew.
type keeping struct {
	keeper *monitor.Keeper
	lock   *store.Lock
	wake   chan struct{} // look at the container's state again
	lost   sync.Once     // of its log

	removal *removal // somebody wants it to be a part of the end; nil: nobody
	volumes bool     // it has some
}

// A removal says how a container is removed.
type removal struct {
	volumes bool
	over    chan struct{} // closed when it has been tried
	err     error         // of that
}

// linger is how long a monitor stays that has nothing to do: the next command
// often comes soon.
const linger = 300 * time.Millisecond

// Monitor is the monitor: it ends when there is nothing to keep any more. It
// expects descriptors from its guard: see startMonitor.
func (e *Engine) Monitor() error {
	listener, err := sys.Watched(listenFD, "monitor")
	if err != nil {
		return &fault.Error{Op: "be the monitor", Kind: fault.Invalid, Err: err, Hint: "kiste starts it where it needs one"}
	}
	sys.CloseOnExec(listenFD)
	sys.CloseOnExec(guardFD)
	sys.Umask(0o022)
	sys.Parallel()
	s := &supervisor{e: e, listener: listener, kept: map[string]*keeping{}, ends: map[int]word{}, flows: make(chan struct{}, 1), told: make(chan struct{}), unwritten: map[string]monitor.End{}, idle: make(chan struct{}, 1), first: make(chan struct{})}
	e.moveToScope()
	s.services = e.keepServices()
	s.raiseLimit()
	if err := s.hearGuard(); err != nil {
		return err
	}
	s.tellInherited()
	s.work(1)
	go s.firstLook()
	go s.serve()
	return s.untilIdle()
}

// firstAsker is how long who has started the monitor may take to ask it.
const firstAsker = 50 * time.Millisecond

// firstLook keeps what an earlier monitor has left. What this one was started
// for comes before: of many containers that takes a while.
func (s *supervisor) firstLook() {
	defer s.work(-1)
	select {
	case <-s.first:
	case <-time.After(firstAsker):
	}
	s.look()
	s.looked.Store(true)
}

// raiseLimit lets the monitor have as many files as it may: a container costs
// it six.
func (s *supervisor) raiseLimit() {
	limit := raisedLimit()
	if limit[1] > 0 && sys.Setrlimit(syscall.RLIMIT_NOFILE, limit[1], limit[1]) == nil {
		s.limit = limit
	}
}

// hearGuard takes what the guard tells: what it told before this monitor began
// first of all.
func (s *supervisor) hearGuard() error {
	fd, err := sys.OpenFile(s.e.endsFile(), os.O_RDONLY|syscall.O_NONBLOCK)
	if err != nil {
		return err
	}
	for s.hear(func(b []byte) (int, error) { return sys.Read(fd, b) }) {
	}
	f, err := sys.Watched(fd, "guard")
	if err != nil {
		return err
	}
	go func() {
		for s.hear(f.Read) {
			s.flow()
		}
	}()
	return nil
}

func (s *supervisor) hear(read func([]byte) (int, error)) bool {
	var b [16]byte // a write of so many is whole
	if n, err := read(b[:]); err != nil || n != len(b) {
		return false
	}
	s.heard(int(binary.LittleEndian.Uint64(b[:])), word{syscall.WaitStatus(binary.LittleEndian.Uint64(b[8:])), time.Now()})
	return true
}

// A word is what the guard has told of a process: how it ended, and when it told.
type word struct {
	status syscall.WaitStatus
	at     time.Time
}

// oldWord is how long somebody may take to ask for the guard's word once all
// containers have been looked at. Of most of its children nobody asks: a command's
// that was left behind in a container, a program's that a plugin has left.
const oldWord = time.Minute

func (s *supervisor) heard(pid int, w word) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.looked.Load() {
		maps.DeleteFunc(s.ends, func(_ int, had word) bool { return w.at.Sub(had.at) > oldWord })
	}
	s.ends[pid] = w
	close(s.told)
	s.told = make(chan struct{})
}

// guardsWord is how long the guard may take to tell how a child of it has ended.
const guardsWord = time.Second

// seen is how the process pid ended, if it was the guard's child.
func (s *supervisor) seen(pid int) (syscall.WaitStatus, bool) {
	late := time.After(guardsWord)
	for {
		s.mu.Lock()
		w, ok := s.ends[pid]
		delete(s.ends, pid)
		told := s.told
		s.mu.Unlock()
		if ok {
			return w.status, true
		}
		select {
		case <-told:
		case <-late:
			return 0, false
		}
	}
}

// forgetStale forgets the end of an earlier process with the number of one that
// lives.
func (s *supervisor) forgetStale(id process.Identity) {
	s.mu.Lock()
	_, told := s.ends[id.PID]
	s.mu.Unlock()
	if told && id.Alive() {
		s.mu.Lock()
		delete(s.ends, id.PID)
		s.mu.Unlock()
	}
}

// untilIdle returns when nothing is left to do. Nobody can start another
// monitor between its last look and the end of the socket.
func (s *supervisor) untilIdle() error {
	for {
		select {
		case <-s.idle:
			continue
		case <-time.After(linger):
		}
		s.mu.Lock()
		free := len(s.kept) == 0 && s.busy == 0
		s.mu.Unlock()
		if !free {
			s.rest()
			continue
		}
		l, err := store.TryLockFile(s.e.monitorLock(), true)
		if errors.Is(err, fault.Conflict) {
			continue // somebody looks for a monitor
		}
		_ = os.Remove(s.e.monitorSocket())
		_ = os.Remove(s.e.endsFile())
		_ = sys.Rmdir(s.e.notes())
		s.listener.Close()
		s.e.leaveGroup(os.Getppid(), os.Getpid()) // with the guard
		if err != nil {
			return nil // the directory is gone, and so is the socket
		}
		return l.Unlock()
	}
}

// rest gives back what nobody needs while nothing happens, and waits until something
// does: what a start took of memory, which may be long ago when the next comes; and
// the pages of this program, most of which a start and an end need, and none a
// container that runs. Whatever wakes this process needs some of them again, and
// therefore says so when it is done: by changed, or by flow.
func (s *supervisor) rest() {
	debug.FreeOSMemory()
	for {
		s.resting.Store(true)
		sys.ReleaseProgram()
		select {
		case <-s.idle:
			s.resting.Store(false)
			return
		case <-s.flows:
		}
		for s.flowed.Swap(false) {
			select {
			case <-s.idle:
				return
			case <-time.After(linger):
			}
		}
	}
}

// flow hears that output has passed, or that something else has been done that is
// not the end of anything kept. It costs nothing while more is.
func (s *supervisor) flow() {
	if !s.flowed.Load() {
		s.flowed.Store(true)
	}
	if s.resting.CompareAndSwap(true, false) {
		select {
		case s.flows <- struct{}{}:
		default: // it has been told
		}
	}
}

// changed lets untilIdle look again.
func (s *supervisor) changed() {
	select {
	case s.idle <- struct{}{}:
	default:
	}
}

func (s *supervisor) work(by int) {
	s.mu.Lock()
	s.busy += by
	s.mu.Unlock()
	if by < 0 {
		s.changed()
	}
}

func (s *supervisor) serve() {
	for {
		stream, uid, err := sys.Accept(s.listener)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil: // too many files are open; others may be closed soon
			time.Sleep(10 * time.Millisecond)
			s.flow()
			continue
		case uid != uint32(os.Geteuid()) && uid != 0:
			stream.Close()
			s.flow()
			continue
		}
		s.work(1)
		go func() {
			defer s.work(-1)
			s.answer(stream)
		}()
	}
}

// slowAsker is how long who asks may take for that.
const slowAsker = 5 * time.Second

func (s *supervisor) answer(stream *os.File) {
	var q request
	_ = stream.SetDeadline(time.Now().Add(slowAsker))
	if err := receive(stream, &q); err != nil {
		stream.Close()
		return
	}
	_ = stream.SetDeadline(time.Time{})
	defer s.served.Do(func() { close(s.first) })
	switch q.Op {
	case "look":
		s.look()
		_ = send(stream, reply{})
		stream.Close()
	case "start":
		s.answerStart(stream, q, s.start)
	case "run":
		s.answerStart(stream, q, s.run)
	case "kill":
		if k := s.keeper(q.ID); k != nil {
			_ = k.Kill() // it may have ended by now
		}
		_ = send(stream, reply{})
		stream.Close()
	case "remove":
		gone, err := s.remove(q)
		_ = send(stream, reply{Declined: !gone, Error: toFailure(err)})
		stream.Close()
	case "exec":
		s.answerExec(stream, q)
	default:
		_ = send(stream, reply{Error: toFailure(&fault.Error{Op: "understand", On: q.Op, Kind: fault.Unsupported, Err: errors.New("the monitor is of another version"), Hint: "it ends when no container runs"})})
		stream.Close()
	}
}

// A starter starts a container. Give hears of its process, and gives those who
// are attached to it.
type starter func(q request, o RunOptions, give func(process.Identity) []*os.File) error

func (s *supervisor) answerStart(stream *os.File, q request, start starter) {
	var r reply
	o := RunOptions{Rows: q.Rows, Columns: q.Columns, Warn: func(w string) { r.Warnings = append(r.Warnings, w) }}
	given := false
	give := func(id process.Identity) []*os.File {
		r.PID, r.Start = id.PID, id.Start
		if !q.Attach || send(stream, r) != nil {
			return nil
		}
		given = true
		return []*os.File{stream}
	}
	err := start(q, o, give)
	if given {
		return
	}
	if errors.Is(err, errDeclined) {
		r, err = reply{Declined: true}, nil
	}
	r.Error = toFailure(err)
	_ = send(stream, r)
	stream.Close()
}

// start starts a container that is there.
func (s *supervisor) start(q request, o RunOptions, give func(process.Identity) []*os.File) error {
	id := q.ID
	if !s.looked.Load() {
		s.adopt(id)
	}
	state, err := s.e.lockState(id)
	if err != nil {
		return err
	}
	defer state.Unlock()
	c, err := s.e.load(id)
	if err != nil {
		return err
	}
	switch {
	case c.State.Removing:
		return conflict("start container", c, "container is marked for removal and cannot be started")
	case c.State.Status == inspect.Paused:
		return conflict("start container", c, "cannot start a paused container, try unpause instead")
	case c.State.Status == inspect.Running, c.State.Status == inspect.Restarting:
		return s.attachTo(c, give)
	}
	lock, err := s.e.keeperLockSoon(id)
	if err != nil {
		return err
	}
	if q.Again && c.Cgroup != "" {
		removeAnyGroup(c.Cgroup)
	}
	c.State.Restarts, c.State.Delay = 0, 0
	c.Unit = q.Unit
	if err := s.begin(c, lock, o, give); err != nil {
		lock.Unlock()
		return err
	}
	return nil
}

// attachTo gives those who wanted to start a container that runs its streams.
func (s *supervisor) attachTo(c *Container, give func(process.Identity) []*os.File) error {
	for _, stream := range give(identity(c.State)) {
		if k := s.keeper(c.ID); k == nil || !k.Admit(stream) {
			stream.Close()
		}
	}
	return nil
}

// begin starts the container's process and keeps it. The caller holds both
// locks; the keeper's is the container's from here on, but for an error.
func (s *supervisor) begin(c *Container, lock *store.Lock, o RunOptions, give func(process.Identity) []*os.File) error {
	o.Lasting, o.fileLimit = true, s.limit
	c.Lasting = true // also one that had its own kiste before
	publishing.RLock()
	defer publishing.RUnlock()
	err := s.e.setLog(c)
	var p *Prepared
	if err == nil {
		p, err = s.e.again(c, o)
	}
	if err == nil {
		err = s.launch(p, lock, give)
	}
	if err != nil {
		if p != nil {
			p.freePorts()
		}
		s.failed(c, err)
	}
	return err
}

// syncDelay is how long a power cut may take the last change of a container's
// state with it. Many do not live as long, and nobody waits for the disk.
const syncDelay = 200 * time.Millisecond

// lasts lets the document of a container survive a power cut, soon.
func (s *supervisor) lasts(c *Container) {
	if c.Wishes.Remove || c.State.Removing {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.brief == nil {
		s.brief = map[string]bool{}
		s.busy++
		time.AfterFunc(syncDelay, s.sync)
	}
	s.brief[c.ID] = true
}

func (s *supervisor) sync() {
	defer s.work(-1)
	s.mu.Lock()
	ids := s.brief
	s.brief = nil
	s.mu.Unlock()
	for id := range ids {
		_ = store.Sync(s.e.document(id))
	}
}

// failed writes down why a container could not be started.
func (s *supervisor) failed(c *Container, err error) {
	s.e.cleanUp(c)
	var start *StartError
	if errors.As(err, &start) {
		c.State.ExitCode = start.Code
	}
	c.IDs = ""
	c.State.Error = err.Error()
	setRestarter(&c.State, false)
	if c.State.Status == inspect.Restarting {
		c.State.Status, c.State.FinishedAt = inspect.Exited, time.Now()
	}
	_ = s.e.write(c)
}

// ends are the container's ends.
func (e *Engine) ends(c *Container, p *Prepared) monitor.Ends {
	m := monitor.Ends{Dir: e.Store.Running(c.ID), Input: c.Wishes.Interactive, Terminal: c.Wishes.TTY, UID: os.Geteuid(), GID: os.Getegid(), Label: c.Result.Spec.Linux.MountLabel}
	if p == nil || os.Geteuid() != 0 {
		return m
	}
	user := c.Result.Spec.Process.User
	m.UID, m.GID = int(user.UID), int(user.GID)
	if p.hasUserNS() {
		if uid, ok := p.uids.ToOutside(user.UID); ok {
			m.UID = int(uid)
		}
		if gid, ok := p.gids.ToOutside(user.GID); ok {
			m.GID = int(gid)
		}
	}
	return m
}

// launch starts the process of p with the ends of a container that is kept.
func (s *supervisor) launch(p *Prepared, lock *store.Lock, give func(process.Identity) []*os.File) (err error) {
	c := p.Container
	ends := s.e.ends(c, p)
	ends.Release() // the holder of a start that was killed
	files, err := monitor.Open(ends)
	if err != nil {
		return err
	}
	defer monitor.CloseFiles(files)
	defer func() {
		if err != nil {
			ends.Release()
		}
	}()
	held := make(chan error, 1)
	switch {
	case ends.Terminal:
	case ends.Input:
		if err := ends.Hold(nil); err != nil {
			return err
		}
		held <- nil
	default:
		go func() { held <- ends.Hold(nil) }()
	}
	proc, err := p.start(process.Options{Files: files})
	if err != nil {
		if !ends.Terminal {
			<-held
		}
		return err
	}
	defer proc.Release()
	if ends.Terminal {
		held <- ends.Hold(proc.Console)
		proc.Console.Close()
	}
	if err = <-held; err == nil {
		err = s.keep(c, ends, lock, give, p.reserved)
	}
	if err == nil {
		s.lasts(c)
	}
	if err != nil {
		_ = proc.Signal(syscall.SIGKILL)
		_, _ = proc.Wait()
	}
	return err
}

// keep keeps a container that runs. The caller holds its keeper's lock.
func (s *supervisor) keep(c *Container, ends monitor.Ends, lock *store.Lock, give func(process.Identity) []*os.File, reserved []*os.File) error {
	log, closer, err := s.e.openLog(c, give == nil)
	if err != nil {
		return err
	}
	id, pid := c.ID, c.State.PID
	k := s.take(id, lock)
	k.volumes = len(c.VolumeNames) > 0
	if len(c.Endpoints) > 0 {
		s.watchRules()
	}
	o := monitor.Options{Ends: ends, Process: identity(c.State), Log: log, Ended: func() (syscall.WaitStatus, bool) { return s.seen(pid) }}
	var next *Container
	o.LogFailed = func(err error) {
		if err != nil {
			k.lost.Do(func() { s.logLost(id, err) })
		}
	}
	o.Exit = func(end monitor.End) int {
		if err := closer.Close(); err != nil {
			k.lost.Do(func() { s.logLost(id, err) })
		}
		next = s.ended(id, end)
		closeAll(reserved) // when no rule leads them on any more
		r := s.removal(id)
		if next == nil {
			s.forget(id, k)
		}
		if r != nil {
			close(r.over) // what is left to be done here nobody waits for
		}
		return end.Code()
	}
	o.Took = s.flow
	s.forgetStale(o.Process)
	if give != nil {
		o.Clients = func() []*os.File { return give(o.Process) }
	}
	keeper, err := monitor.Keep(o)
	if err != nil {
		s.drop(id, k)
		closer.Close()
		return err
	}
	s.mu.Lock()
	k.keeper = keeper
	s.mu.Unlock()
	if h := c.Wishes.Healthcheck(c.Image.Healthcheck); h != nil {
		go s.watchHealth(c, *h, keeper.Done())
	}
	go func() {
		keeper.Wait()
		if next != nil {
			s.startAfterPause(next, k)
		}
	}()
	return nil
}

// keeper is who keeps the container; nil: not this monitor, or not any more.
func (s *supervisor) keeper(id string) *monitor.Keeper {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[id]; k != nil {
		return k.keeper
	}
	return nil
}

// removal is how the container is to be removed when it has ended; nil: it is
// not.
func (s *supervisor) removal(id string) *removal {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[id]; k != nil {
		return k.removal
	}
	return nil
}

// ended writes the end of a container down. It gives the container that is to
// be started anew, or nil.
func (s *supervisor) ended(id string, end monitor.End) *Container {
	l, err := s.e.lockState(id)
	if err != nil {
		return nil // it is gone
	}
	defer l.Unlock()
	c, err := s.e.read(id)
	if err != nil {
		return nil
	}
	end, again := s.knownEnd(id, end)
	if !again {
		s.e.Emit("die", c, map[string]string{"exitCode": strconv.Itoa(end.Code()), "execDuration": strconv.Itoa(int(end.At.Sub(c.State.StartedAt).Seconds()))})
	}
	c.passing = true
	r := s.removal(id)
	if r != nil {
		c.State.Removing, c.State.RemovingVolumes = true, r.volumes
	}
	if err := s.finish(c, end); err != nil {
		if r != nil {
			r.err = err
		}
		return nil
	}
	s.lasts(c)
	if c.State.Status != inspect.Restarting {
		return nil
	}
	c.passing = false
	return c
}

// take takes a container, whose keeper's lock the caller holds, into account.
func (s *supervisor) take(id string, lock *store.Lock) *keeping {
	k := &keeping{lock: lock, wake: make(chan struct{}, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[id] = k
	return k
}

func (s *supervisor) drop(id string, k *keeping) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept[id] == k {
		delete(s.kept, id)
	}
}

// forget drops a container and gives its lock back.
func (s *supervisor) forget(id string, k *keeping) {
	s.drop(id, k)
	k.lock.Unlock()
	s.changed()
}

// startAfterPause starts a container by its policy, unless somebody stops or
// removes it meanwhile.
func (s *supervisor) startAfterPause(c *Container, k *keeping) {
	pause := time.NewTimer(c.State.Delay)
	defer pause.Stop()
	for over := false; ; {
		select {
		case <-pause.C:
			over = true
		case <-k.wake:
		}
		if !s.goOn(c.ID, k, over) {
			s.forget(c.ID, k)
			return
		}
		if over {
			return
		}
	}
}

// goOn reports whether a container that waits is still to be started anew, and
// with now starts it. Both under one lock, so that who stops it in between is
// heard.
func (s *supervisor) goOn(id string, k *keeping, now bool) bool {
	l, err := s.e.lockState(id)
	if err != nil {
		return false
	}
	defer l.Unlock()
	c, err := s.e.read(id)
	switch {
	case err != nil || c.State.Status != inspect.Restarting:
		return false
	case c.State.Stopped || c.State.Removing || !c.Wishes.Restart.Again(c.State.ExitCode, c.State.Restarts-1):
		c.State.Status = inspect.Exited
		_ = s.e.write(c)
		return false
	case now:
		return s.begin(c, k.lock, RunOptions{}, nil) == nil
	}
	return true
}

// look lets those who wait look at their state again, and keeps all containers
// that have no keeper.
func (s *supervisor) look() {
	s.mu.Lock()
	for _, k := range s.kept {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
	s.mu.Unlock()
	for _, k := range s.services {
		k.keepIfNeeded()
	}
	ids, err := s.e.ids()
	if err != nil {
		return
	}
	for _, id := range ids {
		s.adopt(id)
		_ = s.e.unaside(id)
	}
}

// adopt keeps a container whose keeper was killed, or writes its end down.
func (s *supervisor) adopt(id string) {
	if s.keeps(id) {
		return
	}
	c, err := s.e.read(id, unlisted()...)
	if err != nil || !c.Lasting || !IsActive(c.State.Status) {
		return
	}
	state, err := s.e.lockState(id)
	if err != nil {
		return
	}
	defer state.Unlock()
	if c, err = s.e.read(id); err != nil || !IsActive(c.State.Status) {
		return
	}
	rebooted := !isDir(s.e.Store.Running(id)) || c.runs() && c.State.Boot != bootID()
	lock, err := s.e.keeperLockSoon(id)
	if err != nil {
		return
	}
	if rebooted {
		s.e.settleAfterBoot(c)
	} else if s.takeOver(c, lock) {
		return
	}
	lock.Unlock()
}

func (s *supervisor) keeps(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kept[id] != nil
}

// takeOver goes on where the keeper before was killed. It reports whether the
// lock is still needed.
func (s *supervisor) takeOver(c *Container, lock *store.Lock) bool {
	ends := s.e.ends(c, nil)
	switch {
	case c.State.Status == inspect.Restarting:
		go s.startAfterPause(c, s.take(c.ID, lock))
		return true
	case s.keep(c, ends, lock, nil, reserveAgain(c)) == nil:
		return true
	}
	if s.e.lives(c) {
		s.lookLater()
		return false
	}
	ends.Release()
	end, _ := s.knownEnd(c.ID, monitor.End{At: time.Now()})
	_ = s.finish(c, end)
	return false
}
