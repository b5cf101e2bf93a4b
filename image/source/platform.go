package source

import (
	"runtime"
	"strings"

	"kiste/fault"
)

// A Platform is what an image runs on (image-spec, image-index.md), in Go's
// words: linux, arm, v7.
type Platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant,omitempty"`
}

// String is "os/arch[/variant]".
func (p Platform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return clean(s)
}

// Host is the platform of this host.
func Host() Platform {
	p := Platform{OS: runtime.GOOS, Architecture: runtime.GOARCH}
	return p.normal()
}

// ParsePlatform reads "arch", "os/arch" or "os/arch/variant" in Docker's or
// the kernel's words ("aarch64"). A bad one is fault.Invalid.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) == 1 {
		parts = []string{runtime.GOOS, s}
	}
	for _, part := range parts {
		if part == "" || len(part) > 32 || strings.Trim(strings.ToLower(part), "abcdefghijklmnopqrstuvwxyz0123456789_-.") != "" {
			return Platform{}, badPlatform(s)
		}
	}
	if len(parts) > 3 {
		return Platform{}, badPlatform(s)
	}
	p := Platform{OS: parts[0], Architecture: parts[1]}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	return p.normal(), nil
}

func badPlatform(s string) error {
	return &fault.Error{Op: "read platform", On: s, Kind: fault.Invalid, Hint: "write os/arch or os/arch/variant, such as linux/arm64"}
}

// normal gives the one way to write a platform, as containerd's Normalize
// does: arm64/v8 is arm64, arm alone is arm/v7, amd64/v1 is amd64.
func (p Platform) normal() Platform {
	p.OS, p.Architecture, p.Variant = strings.ToLower(p.OS), strings.ToLower(p.Architecture), strings.ToLower(p.Variant)
	switch p.Architecture {
	case "x86_64", "x86-64":
		p.Architecture = "amd64"
	case "i386", "i486", "i586", "i686":
		p.Architecture = "386"
	case "aarch64":
		p.Architecture = "arm64"
	case "armhf":
		p.Architecture, p.Variant = "arm", "v7"
	case "armel":
		p.Architecture, p.Variant = "arm", "v6"
	}
	if p.Variant != "" && p.Variant[0] >= '0' && p.Variant[0] <= '9' {
		p.Variant = "v" + p.Variant
	}
	switch p.Architecture + "/" + p.Variant {
	case "arm/":
		p.Variant = "v7"
	case "arm64/v8", "amd64/v1":
		p.Variant = ""
	}
	return p
}

// known reports whether p is a platform at all: attestations in an index have
// "unknown/unknown".
func (p Platform) known() bool {
	return p.OS != "" && p.Architecture != "" && p.OS != "unknown" && p.Architecture != "unknown"
}

// wanted lists what runs on the platform s, the best first: a processor also
// runs what was made for its older variants.
func wanted(s string) ([]Platform, error) {
	p := Host()
	if s != "" {
		var err error
		if p, err = ParsePlatform(s); err != nil {
			return nil, err
		}
	}
	list := []Platform{p}
	for _, v := range older(p) {
		list = append(list, Platform{p.OS, p.Architecture, v})
	}
	return list, nil
}

func older(p Platform) []string {
	all := []string{"v7", "v6", "v5"}
	switch p.Architecture {
	case "arm":
		if p.Variant == "v8" {
			return all
		}
	case "amd64":
		all = []string{"v4", "v3", "v2", ""}
	case "arm64":
		all = []string{""}
		if p.Variant != "" {
			return all
		}
	default:
		return nil
	}
	for i, v := range all {
		if v == p.Variant {
			return all[i+1:]
		}
	}
	return nil
}

// score is the place of p in the list, or -1.
func score(p Platform, list []Platform) int {
	p = p.normal()
	for i, w := range list {
		if p == w {
			return i
		}
	}
	return -1
}

// rank gives the entries of an index that may fit, the best first; those
// without a platform last, for their configs to tell.
func rank(entries []Descriptor, list []Platform) []Descriptor {
	var ranked []Descriptor
	for i := range list {
		for _, d := range entries {
			if d.Platform != nil && score(*d.Platform, list) == i {
				ranked = append(ranked, d)
			}
		}
	}
	for _, d := range entries {
		if d.Platform == nil {
			ranked = append(ranked, d)
		}
	}
	return ranked
}

// clean makes foreign text safe to print: at most 128 bytes, and printable.
func clean(s string) string {
	if len(s) > 128 {
		s = s[:128]
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == 0xfffd {
			return '?'
		}
		return r
	}, s)
}
