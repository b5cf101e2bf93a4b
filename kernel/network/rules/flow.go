package rules

import (
	"bytes"

	"kiste/kernel/network/nft"
)

// A client of UDP that goes on asking from one port keeps the kernel's memory of
// where its packets go, whatever the rules are by then: it is told to forget when
// a port comes or goes. Connections of TCP and SCTP begin anew by themselves.

// forget lets the kernel forget the flows of ports that are one of unwanted. It is
// done as well as it can be: what is not forgotten ends by itself, when nobody has
// asked for two minutes.
func (r *Rules) forget(ports []Port, unwanted func(Port, nft.Flow) bool) {
	for _, p := range ports {
		if p.Proto != UDP {
			continue
		}
		family := nft.IPv4
		if p.To.Is6() {
			family = nft.IPv6
		}
		flows, err := r.conn.Flows(family, uint8(p.Proto), p.HostPort)
		if err != nil {
			return
		}
		for _, f := range flows {
			if (!p.Host.IsValid() || bytes.Equal(f.Destination, p.Host.AsSlice())) && unwanted(p, f) {
				_ = r.conn.Forget(f)
			}
		}
	}
}

// leads reports whether a flow goes where the port leads.
func (p Port) leads(f nft.Flow) bool {
	return f.Changed() && bytes.Equal(f.Answers, p.To.AsSlice()) && f.AnswersPort == p.ToPort
}

// strays reports whether a flow to the port goes elsewhere. What is under another
// address, but goes where it was meant to go, is on its way through the host.
func (p Port) strays(f nft.Flow) bool {
	return !p.leads(f) && (f.Changed() || !f.Masked)
}
