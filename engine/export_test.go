package engine

// Announce is announce.
func (e *Engine) Announce(n *Named) error { return e.announce(n) }

// Unname is unname.
func (e *Engine) Unname(id string) { e.unname(id) }

// KeepNames lets this process be the one that keeps the resolver, whose pid is 0
// where there is none.
func (e *Engine) KeepNames() (resolver func() int) {
	k := &nameKeeper{e: e}
	e.keepNames = k.keep
	return func() int {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.child == nil {
			return 0
		}
		return k.child.Process.Pid
	}
}
