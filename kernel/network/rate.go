package network

import (
	"errors"
	"math"
	"strconv"
	"strings"

	"kiste/fault"
)

// A Rate is bytes per second. Zero is no limit.
type Rate uint64

// units are those of tc(8): a bare number is bits per second, "bps" is bytes.
// Prefixes are powers of 1000, with an i powers of 1024. In bits.
func unit(word string) (bits float64, ok bool) {
	prefix, factor := word, 1.0
	switch {
	case word == "" || word == "bit" || word == "bit/s":
		return 1, true
	case strings.HasSuffix(word, "bit"):
		prefix = strings.TrimSuffix(word, "bit")
	case strings.HasSuffix(word, "bps"):
		prefix, factor = strings.TrimSuffix(word, "bps"), 8
	}
	switch prefix {
	case "":
		return factor, true
	case "k":
		return factor * 1e3, true
	case "m":
		return factor * 1e6, true
	case "g":
		return factor * 1e9, true
	case "t":
		return factor * 1e12, true
	case "ki":
		return factor * (1 << 10), true
	case "mi":
		return factor * (1 << 20), true
	case "gi":
		return factor * (1 << 30), true
	case "ti":
		return factor * (1 << 40), true
	}
	return 0, false
}

// ParseRate reads a rate as tc(8) takes it: "10mbit", "500kbit", "1gbit",
// "1mbps" (bytes); a bare number is bits per second.
func ParseRate(s string) (Rate, error) {
	number := strings.TrimRight(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz/")
	bits, ok := unit(strings.ToLower(s)[len(number):])
	v, err := strconv.ParseFloat(number, 64)
	bytes := v * bits / 8
	if !ok || err != nil || math.IsNaN(bytes) || bytes < 1 || bytes >= 1<<62 {
		return 0, &fault.Error{Op: "read rate", On: s, Kind: fault.Invalid,
			Err: errors.New("want bits per second as 10mbit, or bytes as 1mbps"), Hint: "units: bit kbit mbit gbit, bps kbps mbps gbps; kibit is 1024 bits"}
	}
	return Rate(bytes), nil
}

// String is the rate in bits per second, as ParseRate reads it.
func (r Rate) String() string {
	bits := uint64(r) * 8
	for _, u := range []struct {
		name string
		size uint64
	}{{"gbit", 1e9}, {"mbit", 1e6}, {"kbit", 1e3}} {
		if bits > 0 && bits%u.size == 0 {
			return strconv.FormatUint(bits/u.size, 10) + u.name
		}
	}
	return strconv.FormatUint(bits, 10) + "bit"
}
