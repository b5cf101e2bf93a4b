package engine

import (
	"fmt"
	"slices"

	"kiste/container/bundle"
	"kiste/fault"
)

// checkPorts refuses ports of a container without a network of its own.
func (p *Prepared) checkPorts() error {
	ports := p.Wishes.Published(p.Image)
	if len(ports) == 0 {
		return nil
	}
	switch kind := p.Wishes.Network.Kind; {
	case kind == bundle.HostNS:
		p.o.Warn("Published ports are discarded when using host network mode")
	case slices.Contains([]string{bundle.Container, bundle.Path}, kind):
		return &fault.Error{Op: "publish ports", Kind: fault.Invalid, Err: fmt.Errorf("conflicting options: port publishing and the container type network mode")}
	}
	return nil
}

func (p *Prepared) publish() error     { return nil }
func (e *Engine) unpublish(*Container) {}
