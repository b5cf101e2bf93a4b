package process

import (
	"time"

	"kiste/container/plan"
	"kiste/fault"
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
		if n.host, err = openHost(a.Host); err != nil {
			return err
		}
	}
	switch a.Kind {
	case plan.ActBridge:
		_, err = n.host.MakeBridge(*a.Bridge)
		return err
	case plan.ActRules:
		return n.rule(a)
	}
	if n.inside == nil {
		if n.inside, err = OpenNetwork(r.child.PID); err != nil {
			return err
		}
	}
	if err := n.host.Attach(*a.Endpoint, n.inside); err != nil {
		return err
	}
	if outer := a.Endpoint.Outer; outer != "" {
		n.undo = append(n.undo, func() { _ = n.host.Delete(outer) })
	}
	return nil
}

// openHost is the network namespace at path, where bridges are; empty: this
// process's.
func openHost(path string) (*network.Namespace, error) {
	if path == "" {
		return network.Here()
	}
	return network.Open(path)
}

// rule lets packets to the container through. Its bridges' part stays.
func (n *networks) rule(a *plan.Act) error {
	table, err := rules.OpenIn(n.host, a.Name)
	if err != nil {
		return err
	}
	defer table.Close()
	if err := table.Add(*a.Rules); err != nil {
		return err
	}
	n.undo = append(n.undo, func() { n.unpublish(a.Name, a.Rules.Ports) })
	return nil
}

// unpublish takes published ports away, from the table with the name.
func (n *networks) unpublish(name string, ports []rules.Port) {
	if len(ports) == 0 {
		return
	}
	table, err := rules.OpenIn(n.host, name)
	if err != nil {
		return
	}
	defer table.Close()
	_ = table.Remove(rules.State{Ports: ports})
}

// finding is how long a child may take until its parent, an ordinary user, finds it,
// and how often that looks.
const finding, glance = 5 * time.Second, 200 * time.Microsecond

// OpenNetwork is the network namespace of a child that has just been born, and is
// going to let its parent find it.
func OpenNetwork(pid int) (n *network.Namespace, err error) {
	for late := time.Now().Add(finding); ; time.Sleep(glance) {
		if n, err = network.OpenProcess(pid); fault.KindOf(err) != fault.Denied || time.Now().After(late) {
			return n, err
		}
	}
}

func (n *networks) close() {
	for _, ns := range []**network.Namespace{&n.host, &n.inside} {
		if *ns != nil {
			_ = (*ns).Close()
			*ns = nil
		}
	}
}
