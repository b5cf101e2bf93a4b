package engine

import (
	"kiste/engine/inspect"
)

// InspectNetwork gives n in Docker's shape, with the containers that run on it.
func (e *Engine) InspectNetwork(n *Network) (inspect.NetworkInspectJSON, error) {
	j := inspect.NetworkInspectJSON{Name: n.Name, ID: n.ID, Created: inspect.Stamp(n.Created), Scope: "local", Driver: n.Driver,
		EnableIPv4: !n.NoIPv4, EnableIPv6: n.IPv6, IPAM: inspect.IPAMJSON{Driver: "default", Options: n.IPAM, Config: []inspect.SubnetJSON{}},
		Internal: n.Internal, Attachable: n.Attachable, Containers: map[string]inspect.EndpointJSON{}, Options: orEmpty(n.Options), Labels: orEmpty(n.Labels)}
	j.ConfigOnly, j.ConfigFrom.Network = n.ConfigOnly, n.ConfigFrom
	for _, s := range n.Subnets {
		j.IPAM.Config = append(j.IPAM.Config, inspect.SubnetJSON{Subnet: s.Subnet, IPRange: s.Range, Gateway: s.Gateway, AuxiliaryAddresses: s.Aux})
	}
	users, err := e.onNetwork(n)
	for _, c := range users {
		if p := c.Endpoint(n.ID); p.ID != "" && c.runs() {
			j.Containers[c.ID] = c.OnNetwork(p)
		}
	}
	return j, err
}

func orEmpty(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
