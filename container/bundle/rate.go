package bundle

import (
	"errors"
	"slices"
	"strings"

	"kiste/kernel/network"
)

// A NetworkRate is one value of --network-rate: what a container may send or
// receive, in bytes a second; 0: as it can.
type NetworkRate struct {
	Rate            network.Rate
	Sends, Receives bool // the directions that it speaks of
}

// ParseNetworkRate reads RATE[:egress][:ingress], as 10mbit:egress. Without a
// direction it speaks of both; none and 0 are no limit.
func ParseNetworkRate(s string) (r NetworkRate, err error) {
	text, directions, _ := strings.Cut(s, ":")
	if text != "none" && text != "0" {
		if r.Rate, err = network.ParseRate(text); err != nil {
			return NetworkRate{}, err
		}
	}
	words := strings.Split(directions, ":")
	r.Sends, r.Receives = slices.Contains(words, "egress"), slices.Contains(words, "ingress")
	switch {
	case directions == "":
		r.Sends, r.Receives = true, true
	case slices.ContainsFunc(words, func(w string) bool { return w != "egress" && w != "ingress" }):
		return NetworkRate{}, errors.New("want RATE, RATE:egress or RATE:ingress, as 10mbit:egress")
	}
	return r, nil
}

// Into puts r in force.
func (r NetworkRate) Into(sends, receives *network.Rate) {
	if r.Sends {
		*sends = r.Rate
	}
	if r.Receives {
		*receives = r.Rate
	}
}

// CheckNetworkRates refuses what cannot be read of the values of --network-rate.
func CheckNetworkRates(s string) error {
	_, err := ParseNetworkRate(s)
	return err
}

// Rates are what the container may send and receive on each of its networks: of
// several values the last counts.
func (w *Wishes) Rates() (sends, receives network.Rate) {
	for _, s := range w.NetworkRates {
		r, err := ParseNetworkRate(s)
		if err != nil {
			continue // it was checked
		}
		r.Into(&sends, &receives)
	}
	return sends, receives
}

// ChangeRates puts further values of --network-rate in force: a direction that
// none of them speaks of stays as it is.
func (w *Wishes) ChangeRates(by []string) {
	changed := Wishes{NetworkRates: slices.Concat(w.NetworkRates, by)}
	sends, receives := changed.Rates()
	w.NetworkRates = nil
	if sends == receives && sends != 0 {
		w.NetworkRates = []string{sends.String()}
		return
	}
	if sends != 0 {
		w.NetworkRates = append(w.NetworkRates, sends.String()+":egress")
	}
	if receives != 0 {
		w.NetworkRates = append(w.NetworkRates, receives.String()+":ingress")
	}
}
