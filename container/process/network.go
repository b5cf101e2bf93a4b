package process

import (
	"kiste/container/plan"
	"kiste/kernel/network"
	"kiste/kernel/network/rules"
)

// networks are the host's network and the container's, while it is brought in.
type networks struct {
	host, inside *network.Namespace

	// undo is for a start that fails: what ends with the container's network
	// by itself would cost time here.
	undo []func()
}

// network does one of the acts that bring the container onto its networks.
func (r *run) network(a *plan.Act) (err error) {
	n := &r.networks
	if n.host == nil {
		if n.host, err = network.Here(); err != nil {
			return err
		}
	}
	switch a.Kind {
	case plan.ActBridge:
		_, err = n.host.MakeBridge(a.Bridge)
		return err
	case plan.ActRules:
		return n.rule(a)
	}
	if n.inside == nil {
		if n.inside, err = network.OpenProcess(r.child.PID); err != nil {
			return err
		}
	}
	if err := n.host.Attach(a.Endpoint, n.inside); err != nil {
		return err
	}
	if outer := a.Endpoint.Outer; outer != "" {
		n.undo = append(n.undo, func() { _ = n.host.Delete(outer) })
	}
	return nil
}

// rule lets packets to the container through. Its bridges' part stays.
func (n *networks) rule(a *plan.Act) error {
	table, err := rules.Open(a.Name)
	if err != nil {
		return err
	}
	defer table.Close()
	if err := table.Add(a.Rules); err != nil {
		return err
	}
	n.undo = append(n.undo, func() { _ = Unpublish(a.Name, a.Rules.Ports) })
	return nil
}

// Unpublish takes published ports away, from the table with the name.
func Unpublish(name string, ports []rules.Port) error {
	if len(ports) == 0 {
		return nil
	}
	table, err := rules.Open(name)
	if err != nil {
		return err
	}
	defer table.Close()
	return table.Remove(rules.State{Ports: ports})
}

func (n *networks) close() {
	for _, ns := range []**network.Namespace{&n.host, &n.inside} {
		if *ns != nil {
			_ = (*ns).Close()
			*ns = nil
		}
	}
}
