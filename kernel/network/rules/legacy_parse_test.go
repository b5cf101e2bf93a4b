package rules

import (
	"encoding/binary"
	"testing"

	"kiste/kernel/network/nft"
)

// legacyRule is an entry of IPv4 with a target and its data.
func legacyRule(target string, data []byte) []byte {
	b := make([]byte, 112+32+len(data))
	binary.NativeEndian.PutUint16(b[88:], 112)
	binary.NativeEndian.PutUint16(b[90:], uint16(len(b)))
	copy(b[114:], target)
	copy(b[144:], data)
	return b
}

func legacyVerdict(v int32) []byte {
	return legacyRule("", binary.NativeEndian.AppendUint32(nil, uint32(v)))
}

// legacyTable is INPUT with one rule, its policy, and behind it a chain that drops.
func legacyTable(rule func(chain int32) []byte) (info, entries []byte) {
	policy := len(rule(0))
	chain := policy + 2*len(legacyVerdict(0)) - len(legacyVerdict(0))
	entries = append(rule(int32(chain+len(legacyRule("ERROR", make([]byte, 32))))), legacyVerdict(-2)...)
	entries = append(entries, legacyRule("ERROR", append([]byte("GATE"), make([]byte, 28)...))...)
	entries = append(append(entries, legacyVerdict(-1)...), legacyRule("ERROR", append([]byte("ERROR"), make([]byte, 27)...))...)
	info = make([]byte, 84)
	binary.NativeEndian.PutUint32(info[32:], 1<<nft.Input)
	binary.NativeEndian.PutUint32(info[56+4*nft.Input:], uint32(policy))
	return info, entries
}

func TestParseLegacy(t *testing.T) {
	for _, tt := range []struct {
		name  string
		rule  func(int32) []byte
		drops bool
	}{
		{"a rule that accepts", func(int32) []byte { return legacyVerdict(-2) }, false},
		{"one that drops", func(int32) []byte { return legacyVerdict(-1) }, true},
		{"one that rejects", func(int32) []byte { return legacyRule("REJECT", make([]byte, 8)) }, true},
		{"one that logs", func(int32) []byte { return legacyRule("LOG", make([]byte, 8)) }, false},
		{"a call of a chain that drops", legacyVerdict, true},
		{"one that calls itself", func(int32) []byte { return legacyVerdict(0) }, false},
		{"one that calls nothing", func(int32) []byte { return legacyVerdict(1 << 30) }, false},
	} {
		info, entries := legacyTable(tt.rule)
		chains, drops := parseLegacy(nft.IPv4, info, entries)
		if len(chains) != 2 || chains[0].Name != "INPUT" || chains[0].Drop || chains[1].Name != "GATE" || drops != tt.drops {
			t.Errorf("%s: %+v, drops %v; want %v", tt.name, chains, drops, tt.drops)
		}
	}
}

func FuzzParseLegacy(f *testing.F) {
	info, entries := legacyTable(legacyVerdict)
	f.Add(true, info, entries)
	f.Add(false, info, entries)
	f.Fuzz(func(t *testing.T, six bool, info, entries []byte) {
		family := nft.IPv4
		if six {
			family = nft.IPv6
		}
		chains, _ := parseLegacy(family, info, entries)
		if len(chains) > 2+len(entries)/112 {
			t.Errorf("%d chains of %d bytes", len(chains), len(entries))
		}
	})
}
