package engine

import (
	"errors"
	"reflect"

	"kiste/container/bundle"
	"kiste/engine/inspect"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
	"kiste/kernel/network"
)

// UpdateOptions say what is changed; zero fields stay as they are.
type UpdateOptions struct {
	Limits  bundle.Limits   // Pids of -1: no limit any more
	Rates   []string        // values of --network-rate
	Restart *bundle.Restart // nil: the policy stays
	Warn    func(string)    // nil: silence
}

// Update changes what a container may use, and what happens when it ends: at
// once where it runs, and in its document for the next start. A limit of memory
// below what it uses is fault.Conflict, as is what contradicts its other limits.
func (e *Engine) Update(query string, o UpdateOptions) error {
	id, err := e.id(query)
	if err != nil {
		return err
	}
	waits := false
	err = e.change(id, func(c *Container) error {
		if err := e.update(c, o); err != nil {
			return err
		}
		waits = c.State.Status == inspect.Restarting
		e.Emit("update", c, nil)
		return nil
	})
	if err == nil && waits {
		e.nudge() // the monitor looks at the policy again
	}
	return err
}

func (e *Engine) update(c *Container, o UpdateOptions) error {
	const op = "update container"
	switch {
	case c.State.Removing:
		return conflict(op, c, "container is marked for removal and cannot be \"update\"")
	case o.Restart != nil && o.Restart.Set() && c.Wishes.Remove:
		return conflict(op, c, "Restart policy cannot be updated because AutoRemove is enabled for the container")
	}
	p := &Prepared{e: e, Container: c}
	swapless := o.Limits.Memory > 0 && !p.limitsSwap()
	limits, err := c.Wishes.Limits.Changed(o.Limits, swapless)
	if err != nil {
		return &fault.Error{Op: op, On: c.Name, Kind: fault.KindOf(err), Hint: fault.HintOf(err), Err: errors.Unwrap(err)}
	}
	was := *c.Result
	c.Wishes.Limits = limits
	warnings, err := c.Result.Relimit(c.Wishes, bundle.Facts{CPUs: sys.CPUs(), Device: devices, NoSwapLimit: swapless})
	if err != nil {
		return err
	}
	if o.Warn != nil {
		for _, w := range warnings {
			o.Warn(w)
		}
	}
	if o.Restart != nil {
		c.Wishes.Restart = *o.Restart
	}
	if len(o.Rates) == 0 {
		return c.relimit(&was, o.Limits)
	}
	sends, receives := c.Wishes.Rates()
	c.Wishes.ChangeRates(o.Rates)
	if err := c.checkRates(); err != nil {
		return err
	}
	nowSends, nowReceives := c.Wishes.Rates()
	if err := e.rerate(c, nowSends, nowReceives); err != nil {
		return errors.Join(err, e.rerate(c, sends, receives))
	}
	if err := c.relimit(&was, o.Limits); err != nil {
		return errors.Join(err, e.rerate(c, sends, receives))
	}
	return nil
}

// checkRates refuses rates that a container has no links of its own for.
func (c *Container) checkRates() error {
	sends, receives := c.Wishes.Rates()
	kind := c.Wishes.Network.Kind
	var err error
	switch {
	case sends == 0 && receives == 0:
	case kind == bundle.HostNS || kind == bundle.Container || kind == bundle.Path:
		err = errors.New("its network is that of others")
	case shares() && kind != bundle.None && !c.Wishes.OnUserNetwork():
		err = errors.New("an ordinary user's has rates on networks that he has created")
	}
	if err == nil {
		return nil
	}
	return &fault.Error{Op: "limit the network of", On: c.Name, Kind: fault.Unsupported, Err: err, Hint: `"kiste cgroup set --network-rate" limits groups of processes in the host's network`}
}

// rerate changes the rates of the links of a container that runs.
func (e *Engine) rerate(c *Container, sends, receives network.Rate) error {
	if !c.runs() {
		return nil
	}
	if len(c.Plugged) > 0 {
		return &fault.Error{Op: "limit the network of", On: c.Name, Kind: fault.Unsupported, Err: errors.New("CNI plugins are told when it starts, and never again"), Hint: "stop it first: the next start has the rate"}
	}
	return e.live(c, func(host, inside *network.Namespace) error {
		for i := range c.Endpoints {
			if err := inside.SetRates(host, c.Endpoints[i].Link, sends, receives); err != nil {
				return err
			}
		}
		return nil
	})
}

// relimit tells the kernel of changed limits, where the container runs. What it
// refuses leaves the group as it was.
func (c *Container) relimit(was *bundle.Result, by bundle.Limits) error {
	if !c.runs() || reflect.ValueOf(by).IsZero() {
		return nil
	}
	limits, err := changedLimits(c.Result, by)
	if err != nil {
		return err
	}
	if c.Cgroup == "" {
		return &fault.Error{Op: "update container", On: c.Name, Kind: fault.Unsupported, Err: errors.New("it has no cgroup"), Hint: `"kiste doctor" says why; once it is stopped its next start can have limits`}
	}
	l, err := cgroup.Detect()
	if err != nil {
		return err
	}
	g, err := cgroup.Open(l, c.Cgroup)
	if errors.Is(err, fault.NotFound) {
		return nil // it has just ended
	}
	if err != nil {
		return err
	}
	err = g.Update(limits)
	if err == nil {
		return nil
	}
	if before, bad := changedLimits(was, by); bad == nil {
		before.Memory.CheckUsage = false
		_ = g.Update(before)
	}
	return &fault.Error{Op: "update container", On: c.Name, Kind: fault.KindOf(err), Hint: fault.HintOf(err), Err: err}
}

// changedLimits are the limits of r which by names.
func changedLimits(r *bundle.Result, by bundle.Limits) (cgroup.Limits, error) {
	resources := *r.Spec.Linux.Resources
	resources.Devices = nil
	all, err := cgroup.FromSpec(&resources)
	if err != nil {
		return all, err
	}
	var some cgroup.Limits
	if by.Memory != 0 || by.MemorySwap != 0 {
		some.Memory.Limit, some.Memory.Swap, some.Memory.CheckUsage = all.Memory.Limit, all.Memory.Swap, true
	}
	if by.MemoryReservation != 0 {
		some.Memory.Reservation = all.Memory.Reservation
	}
	if by.NanoCPUs != 0 || by.CPUQuota != 0 || by.CPUPeriod != 0 || by.CPUShares != 0 || by.CPURTPeriod != 0 || by.CPURTRuntime != 0 || by.CpusetCPUs != "" || by.CpusetMems != "" {
		some.CPU = all.CPU
	}
	if by.BlkioWeight != 0 {
		some.IO.Weight = all.IO.Weight
	}
	switch {
	case by.Pids == 0:
	case all.Pids == 0:
		some.Pids = -1
	default:
		some.Pids = all.Pids
	}
	return some, nil
}
