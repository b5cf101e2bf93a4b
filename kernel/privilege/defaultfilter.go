package privilege

import "encoding/binary"

// DefaultFilter is the filter of Docker's default profile for a container
// whose bounding set is caps, on this machine. For the usual sets it was
// compiled when Kiste was built and costs next to nothing; others cost a
// compilation.
func DefaultFilter(caps Caps) (Filter, error) {
	if precompiled != "" && caps&profileCaps == DefaultCaps&profileCaps {
		return Filter{unpack(precompiled), FlagSpecAllow}, nil
	}
	return compileDefault(caps, ownArch)
}

func compileDefault(caps Caps, arch string) (Filter, error) {
	profile, err := DefaultProfile(caps, arch)
	if err != nil {
		return Filter{}, err
	}
	return Compile(profile, arch)
}

// unpack reads instructions of 8 bytes, least significant byte first.
func unpack(text string) []Instruction {
	out := make([]Instruction, len(text)/8)
	for i := range out {
		b := []byte(text[8*i : 8*i+8])
		out[i] = Instruction{binary.LittleEndian.Uint16(b), b[2], b[3], binary.LittleEndian.Uint32(b[4:])}
	}
	return out
}

func pack(code []Instruction) []byte {
	out := make([]byte, 0, 8*len(code))
	for _, in := range code {
		out = binary.LittleEndian.AppendUint16(out, in.Op)
		out = append(out, in.Jt, in.Jf)
		out = binary.LittleEndian.AppendUint32(out, in.K)
	}
	return out
}
