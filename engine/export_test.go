package engine

// Announce is announce, of the resolver.
func (e *Engine) Announce(n *Named) error { return e.announce(Resolver, n.ID, n) }

// AnnounceProxied is announce, of the proxy.
func (e *Engine) AnnounceProxied(p Proxied) error { return e.announce(Proxy, p.ID, p) }

// Unserve is unserve.
func (e *Engine) Unserve(id string) { e.unserve(id) }

// KeepServices lets this process be the one that keeps the services, whose pid is 0
// where there is none.
func (e *Engine) KeepServices() (pid func(*Service) int) {
	all := e.keepServices()
	return func(s *Service) int {
		k := all[s]
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.child == nil {
			return 0
		}
		return k.child.Process.Pid
	}
}
