package engine

import (
	"errors"
	"path/filepath"
	"strings"

	"kiste/fault"
	"kiste/image/snapshot"
	"kiste/kernel/cgroup"
)

// delegation gives a whole system its cgroup: all that it needs of version 2,
// else the hierarchy of systemd's name, in which it only keeps track of its
// processes.
func (p *Prepared) delegation(layout cgroup.Layout) (cgroup.Options, error) {
	if !p.Result.System && p.Unit == "" {
		return cgroup.Options{}, nil
	}
	if !p.Result.System { // in which systemd counts the unit's processes
		return cgroup.Options{Join: []string{tracking}}, nil
	}
	o := cgroup.Options{Account: layout.Kind() == "v2"}
	if uid, ok := p.uids.ToOutside(0); ok && p.hasUserNS() {
		o.Owner = int(uid)
	}
	if o.Account {
		return o, nil
	}
	if _, ok := layout.Find(tracking); !ok {
		return o, &fault.Error{Op: "use option", On: "--systemd", Kind: fault.Unsupported, Err: errors.New("this host has cgroup version 1, and there not the hierarchy in which systemd keeps track of processes"),
			Hint: "mkdir /sys/fs/cgroup/systemd && mount -t cgroup -o none," + tracking + " cgroup /sys/fs/cgroup/systemd"}
	}
	o.Join = []string{tracking}
	return o, nil
}

// machineID is the id that a whole system is given where it has none, or is to
// make one in a dialogue that nobody would answer. See machine-id(5).
func (p *Prepared) machineID(lower []string) (string, error) {
	if !p.Result.System {
		return "", nil
	}
	if upper := filepath.Join(p.e.Store.Container(p.ID), "upper"); isDir(upper) && !p.Wishes.RootFS {
		lower = append([]string{upper}, lower...)
	}
	text, err := snapshot.ReadFile(lower, "/etc/machine-id", 64)
	if err != nil && fault.KindOf(err) != fault.NotFound {
		return "", err
	}
	if own := strings.TrimSpace(string(text)); own != "" && own != "uninitialized" {
		return "", nil
	}
	return p.ID[:32], nil
}
