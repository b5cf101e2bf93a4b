package plan

import "kiste/fault"

// served lets the parent start what serves the network in which the child waits.
func (c *compiler) served() {
	if c.o.Served != "" {
		c.act("let "+c.o.Served+" serve the network", networkField, Act{Kind: ActServe, Value: c.o.Served})
	}
}

// checkServed refuses to serve a network that is not there when the child is born.
func (c *compiler) checkServed() error {
	if c.o.Served == "" || c.fresh["network"] && c.bornInNetwork() {
		return nil
	}
	return refused(networkField, fault.Unsupported, "%s serves a network only in a user namespace of the container's own", c.o.Served)
}
