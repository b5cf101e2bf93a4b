package engine

import (
	"errors"
	"os"
	"slices"
	"time"

	"kiste/kernel/network/nft"
	"kiste/kernel/network/rules"
)

// Who flushes the host's rules takes ours away with them, and who changes them may
// change what they say about published ports, or about what bridges switch. The monitor
// hears of it, makes ours again from the documents, and turns shortcuts on or off.

// settleRules is how long whoever changes the packet filter is left alone.
const settleRules = 50 * time.Millisecond

// restShare bounds the work that others can make us do: after it as many times as
// long is rested.
const restShare = 4

// watchRules makes this store's rules again whenever somebody has taken some
// away or changed his own, for as long as the monitor lives.
func (s *supervisor) watchRules() {
	if shares() { // nobody else is there; but it may end as a whole
		go s.watchShared()
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
				if lost || slices.ContainsFunc(changes, func(c nft.Change) bool { return c.Table.Family == nft.Bridge }) {
					_ = s.e.settleShortcuts()
				}
				if lost || s.e.concerns(changes) || foreign(changes) && s.e.publishes() {
					time.Sleep(settleRules)
					began := time.Now()
					_ = s.e.restoreRules()
					time.Sleep(restShare * time.Since(began))
				}
				s.flow()
			}
		}()
		go func() { // what was changed while nobody watched
			_ = errors.Join(s.e.settleShortcuts(), s.e.restoreRules())
		}()
	})
}

// concerns reports whether part of our table or of a copy was taken away that
// this program itself takes away only with all.
func (e *Engine) concerns(changes []nft.Change) bool {
	return slices.ContainsFunc(changes, func(c nft.Change) bool {
		return c.Deleted && c.Set == "" && (c.Table.Name == e.table() || rules.IsCopy(e.table(), c.Table))
	})
}

// foreign reports whether somebody else has changed what may be about input.
func foreign(changes []nft.Change) bool {
	return slices.ContainsFunc(changes, func(c nft.Change) bool { return rules.IsForeign(c.Table) })
}

// publishes reports whether this store has published ports.
func (e *Engine) publishes() bool {
	var all []rules.Port
	err := e.withRules(func(r *rules.Rules) (err error) { all, err = r.Ports(); return err })
	return err == nil && len(all) > 0
}

// bridged are the networks with a bridge that are used.
func (e *Engine) bridged() (used []*Network, err error) {
	all, _, err := e.networks()
	for _, n := range all {
		if leases, _ := os.ReadDir(e.Store.Leases(n.ID)); n.Driver == "bridge" && len(leases) > 0 {
			used = append(used, n)
		}
	}
	return used, err
}

// settleShortcuts has the shortcuts of all bridges that are used taken, or not as long
// as somebody filters what bridges switch.
func (e *Engine) settleShortcuts() error {
	used, err := e.bridged()
	if err != nil || len(used) == 0 {
		return err
	}
	host, err := e.bridgeHost()
	if err != nil {
		return err
	}
	defer host.Close()
	for _, n := range used {
		err = errors.Join(err, host.SettleShortcuts(n.Link()))
	}
	return err
}

// restoreRules makes the rules of all networks that are used and of all ports
// that are published.
func (e *Engine) restoreRules() error {
	publishing.Lock()
	defer publishing.Unlock()
	var want rules.State
	bridged, err := e.bridged()
	if err != nil {
		return err
	}
	for _, n := range bridged {
		want.Bridges = append(want.Bridges, n.rules())
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
