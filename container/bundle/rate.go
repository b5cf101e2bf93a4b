package bundle

import (
	"errors"
	"strings"

	"kiste/kernel/network"
)

// ParseNetworkRate reads RATE[:egress|:ingress], as 10mbit:egress: what a
// container may send and receive, in bytes a second; 0: as it can.
func ParseNetworkRate(s string) (sends, receives network.Rate, err error) {
	text, directions, _ := strings.Cut(s, ":")
	rate, err := network.ParseRate(text)
	if err != nil {
		return 0, 0, err
	}
	switch directions {
	case "", "egress:ingress", "ingress:egress":
		return rate, rate, nil
	case "egress":
		return rate, 0, nil
	case "ingress":
		return 0, rate, nil
	}
	return 0, 0, errors.New("want RATE, RATE:egress or RATE:ingress, as 10mbit:egress")
}

// CheckNetworkRates refuses what cannot be read of the values of --network-rate.
func CheckNetworkRates(s string) error {
	_, _, err := ParseNetworkRate(s)
	return err
}

// Rates are what the container may send and receive on each of its networks.
func (w *Wishes) Rates() (sends, receives network.Rate) {
	for _, s := range w.NetworkRates {
		out, in, err := ParseNetworkRate(s)
		if err != nil {
			continue // it was checked
		}
		if out != 0 {
			sends = out
		}
		if in != 0 {
			receives = in
		}
	}
	return sends, receives
}
