package cni

import (
	"encoding/json"
	"fmt"

	"kiste/fault"
	"kiste/kernel/network"
)

// A Result is what the plugins gave.
type Result struct {
	Links []Link
	IPs   []IP
	DNS   DNS
}

// A Link is one that a plugin made.
type Link struct {
	Name, MAC string
	Inside    bool // in the container
}

// An IP is an address of the container.
type IP struct {
	Address network.Prefix
	Gateway network.Addr // zero: none
}

// DNS is what a plugin says of resolv.conf.
type DNS struct {
	Nameservers []string `json:"nameservers"`
	Search      []string `json:"search"`
	Options     []string `json:"options"`
}

// ParseResult reads a result of versions 0.3.0 to 1.1.0.
func ParseResult(text []byte) (r Result, err error) {
	bad := func(err error) error {
		return &fault.Error{Op: "read the result of a CNI plugin", Kind: fault.Invalid, Err: err}
	}
	var raw struct {
		Interfaces []struct {
			Name    string `json:"name"`
			MAC     string `json:"mac"`
			Sandbox string `json:"sandbox"`
		} `json:"interfaces"`
		IPs []struct {
			Address string `json:"address"`
			Gateway string `json:"gateway"`
		} `json:"ips"`
		DNS DNS `json:"dns"`
	}
	if err := json.Unmarshal(text, &raw); err != nil {
		return r, bad(err)
	}
	if n := max(len(raw.Interfaces), len(raw.IPs), len(raw.DNS.Nameservers), len(raw.DNS.Search), len(raw.DNS.Options)); n > maxList {
		return r, bad(fmt.Errorf("a list of %d is too long", n))
	}
	for _, l := range raw.Interfaces {
		if err := network.CheckName(l.Name); err != nil {
			return r, bad(err)
		}
		if l.MAC != "" && network.CheckMAC(l.MAC) != nil {
			l.MAC = "" // it is only shown
		}
		r.Links = append(r.Links, Link{l.Name, l.MAC, l.Sandbox != ""})
	}
	for _, ip := range raw.IPs {
		var out IP
		if out.Address, err = network.ParsePrefix(ip.Address); err != nil {
			return r, bad(err)
		}
		if ip.Gateway != "" {
			if out.Gateway, err = network.ParseAddr(ip.Gateway); err != nil {
				return r, bad(err)
			}
		}
		r.IPs = append(r.IPs, out)
	}
	for _, s := range raw.DNS.Nameservers {
		if _, err := network.ParseAddr(s); err != nil {
			return r, bad(err)
		}
	}
	r.DNS = raw.DNS
	return r, nil
}
