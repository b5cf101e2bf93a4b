package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"kiste/container/process"
	"kiste/fault"
	"kiste/internal/sys"
)

// errDeclined is what the monitor leaves to who has asked it, who can do it
// himself, and hears why not where it cannot be done.
var errDeclined = errors.New("declined")

// run makes a container and starts it. It may be asked twice, of a monitor that
// is killed and of the next.
func (s *supervisor) run(q request, o RunOptions, give func(process.Identity) []*os.File) error {
	if !isID(q.ID) || q.Wishes == nil {
		return errDeclined
	}
	switch made, err := s.made(q.ID); {
	case err != nil:
		return err
	case made:
		return s.start(q, o, give)
	}
	o.id, o.Asked, o.Image, o.Wishes, o.Lasting, o.StartsNext, o.fileLimit = q.ID, q.Asked, q.Image, *q.Wishes, true, true, s.limit
	publishing.RLock()
	defer publishing.RUnlock()
	p, err := s.e.prepareLasting(context.Background(), o)
	if err != nil {
		return errDeclined
	}
	defer func() { p.unlock() }()
	if err := p.writeCreated(); err != nil {
		return err
	}
	if err := s.launch(p, p.keeper, give); err != nil {
		p.freePorts()
		s.failed(p.Container, err)
		if p.Wishes.Remove {
			s.e.Emit("destroy", p.Container, nil)
			_ = s.e.removeFiles(p.ID, p.Container, true)
		}
		return err
	}
	p.keeper = nil // the container's keeper has it
	return nil
}

// made reports whether a container is there. What a monitor has left of one that
// was killed over it is removed.
func (s *supervisor) made(id string) (bool, error) {
	l, err := s.e.lockState(id)
	if errors.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer l.Unlock()
	if _, err := s.e.read(id); !errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	return false, s.e.removeFiles(id, nil, true)
}

// slowDeath is how long a process may take to end that was killed. Then it may
// be frozen.
const slowDeath = 20 * time.Millisecond

// remove kills a container that this monitor keeps. To remove it is then a part
// of its end. It reports whether it is gone, and what could not be undone of it.
func (s *supervisor) remove(q request) (gone bool, err error) {
	s.mu.Lock()
	k := s.kept[q.ID]
	if k == nil || k.keeper == nil {
		s.mu.Unlock()
		return false, nil
	}
	if k.removal == nil {
		k.removal = &removal{volumes: q.Volumes, over: make(chan struct{})}
	}
	r := k.removal
	s.mu.Unlock()
	// The end of an overlay waits for all that its file system has to write to
	// the disk, whoever has written it: nobody has to wait for that who removes
	// it. A volume is to be unmounted first.
	if mounts, err := k.keeper.Mounts(); err == nil && !k.volumes {
		s.work(1)
		defer func() {
			go func() {
				defer s.work(-1)
				sys.Close(mounts)
			}()
		}()
	} else if err == nil {
		sys.Close(mounts)
	}
	_ = k.keeper.Kill() // it may have ended by now
	late := time.NewTimer(slowDeath)
	defer late.Stop()
	select {
	case <-r.over:
	case <-k.keeper.Done(): // it had ended before
	case <-late.C:
		if c, err := s.e.read(q.ID); err == nil {
			_ = s.e.freeze(c, false)
		}
		select {
		case <-r.over:
		case <-k.keeper.Done():
		}
	}
	select {
	case <-r.over:
		err = r.err
	default:
	}
	return s.e.gone(q.ID), err
}
