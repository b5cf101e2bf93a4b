package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/container/bundle"
	"kiste/fault"
	"kiste/kernel/namespace"
)

// running finds a container whose namespaces are to be joined.
func (p *Prepared) running(name string) (*Container, error) {
	other, err := p.e.Find(name)
	if err == nil && !other.runs() {
		err = &fault.Error{Op: "join container", On: name, Kind: fault.Conflict, Err: errors.New("it is not running")}
	}
	return other, err
}

// joins fills in the namespaces of other containers.
func (p *Prepared) joins([]string) error {
	for _, j := range p.Result.Joins {
		other, err := p.running(j.Container)
		if err != nil {
			return err
		}
		ns := &p.Result.Spec.Linux.Namespaces[j.Index]
		ns.Path = fmt.Sprintf("/proc/%d/ns/%s", other.State.PID, namespace.File(string(ns.Type)))
	}
	return nil
}

// joinUser takes over the ids of the user namespace that the container is going
// to join, if it joins one, and holds them against those who look for a range.
// Where that namespace is the host's, there is none to join.
func (p *Prepared) joinUser(f *bundle.Facts) (joined bool, err error) {
	file, from := p.Wishes.UserNS.Of, p.Wishes.UserFrom(f.Root)
	if from != "" {
		other, err := p.running(from)
		if err != nil {
			return false, err
		}
		file = fmt.Sprintf("/proc/%d/ns/user", other.State.PID)
	} else if p.Wishes.UserNS.Kind != bundle.Path {
		return false, nil
	}
	uids, gids, own, err := namespace.UserMaps(file)
	if err != nil {
		return false, err
	}
	if own {
		p.Wishes.UserNS = bundle.Namespace{Kind: bundle.HostNS}
		return true, nil
	}
	f.UIDs, f.GIDs = mappings(uids), mappings(gids)
	if err := p.shareIDs(uids); err != nil || from == "" {
		return true, err
	}
	// Who ends before the claim was there gives his ids to others.
	_, err = p.running(from)
	return true, err
}

// sharers ends the name of a directory with the claims of those who joined
// whoever has a range of ids.
const sharers = ".shared"

// shareIDs claims a range of ids together with the container that has it.
func (p *Prepared) shareIDs(uids namespace.IDMaps) error {
	if p.o.DryRun || len(uids) != 1 || uids[0].Outside < firstRange || uids[0].Outside >= firstRange+rangeCount*rangeSize {
		return nil
	}
	dir := filepath.Join(p.e.claims(), fmt.Sprint((uids[0].Outside-firstRange)/rangeSize)+sharers)
	p.IDs = filepath.Join(dir, p.ID)
	for range 100 {
		err := os.MkdirAll(dir, 0o700)
		if err == nil {
			err = os.Symlink(p.ID, p.IDs)
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return &fault.Error{Op: "claim ids", On: dir, Kind: fault.Unavailable, Err: errors.New("the directory goes away again and again")}
}

func idMaps(in []specs.LinuxIDMapping) namespace.IDMaps {
	out := make(namespace.IDMaps, len(in))
	for i, m := range in {
		out[i] = namespace.IDMap{Inside: m.ContainerID, Outside: m.HostID, Size: m.Size}
	}
	return out
}
