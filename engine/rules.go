package engine

import (
	"os"
	"time"

	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

// Who flushes the host's rules takes ours away with them. The monitor hears of
// it, and makes them again from the documents.

// settleRules is how long whoever changes the packet filter is left alone.
const settleRules = 50 * time.Millisecond

// watchRules makes this store's rules again whenever somebody has taken some
// away, for as long as the monitor lives.
func (s *supervisor) watchRules() {
	if os.Geteuid() != 0 {
		return
	}
	s.rules.Do(func() {
		w, err := nft.NewWatch()
		if err != nil {
			return // the starts tell why
		}
		go func() {
			for {
				changes, lost, err := w.Next()
				if err != nil {
					return
				}
				if lost || s.e.concerns(changes) {
					time.Sleep(settleRules)
					_ = s.e.restoreRules()
				}
			}
		}()
		go func() { _ = s.e.restoreRules() }() // what was flushed while nobody watched
	})
}

// concerns reports whether part of our table was taken away that this program
// itself takes away only with all.
func (e *Engine) concerns(changes []nft.Change) bool {
	for _, c := range changes {
		if c.Deleted && c.Set == "" && c.Table.Name == e.table() {
			return true
		}
	}
	return false
}

// restoreRules makes the rules of all networks that are used and of all ports
// that are published.
func (e *Engine) restoreRules() error {
	publishing.Lock()
	defer publishing.Unlock()
	var want rules.State
	all, _, err := e.networks()
	if err != nil {
		return err
	}
	for _, n := range all {
		if leases, _ := os.ReadDir(e.Store.Leases(n.ID)); n.Driver == "bridge" && len(leases) > 0 {
			want.Bridges = append(want.Bridges, n.rules())
		}
	}
	ids, err := e.ids()
	if err != nil {
		return err
	}
	for _, id := range ids {
		c, err := e.read(id)
		if err == nil && c.runs() {
			want.Ports = append(want.Ports, rulesOf(c)...)
		}
	}
	if len(want.Bridges) == 0 {
		return nil
	}
	return e.withRules(func(r *rules.Rules) error {
		_, err := r.Reconcile(want)
		return err
	})
}
