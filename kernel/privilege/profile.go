package privilege

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/fault"
)

// defaultJSON is Docker's default profile, github.com/moby/profiles/seccomp
// v0.3.0, Apache-2.0, copyright The Moby Authors; white space taken out.
//
//go:embed default.json
var defaultJSON []byte

// profileCaps are the capabilities that defaultJSON asks about.
const profileCaps Caps = 1<<2 | 1<<16 | 1<<17 | 1<<18 | 1<<19 | 1<<20 | 1<<21 | 1<<22 | 1<<23 | 1<<25 | 1<<26 | 1<<34 | 1<<38 | 1<<39

// MaxProfile is the most that ReadProfile reads, in bytes.
const MaxProfile = 1 << 20

// A dockerProfile is an OCI profile with Docker's conditions.
type dockerProfile struct {
	DefaultAction    specs.LinuxSeccompAction `json:"defaultAction"`
	DefaultErrnoRet  *uint                    `json:"defaultErrnoRet"`
	Architectures    []specs.Arch             `json:"architectures"`
	ArchMap          []archMap                `json:"archMap"`
	Flags            []specs.LinuxSeccompFlag `json:"flags"`
	ListenerPath     string                   `json:"listenerPath"`
	ListenerMetadata string                   `json:"listenerMetadata"`
	Syscalls         []dockerSyscall          `json:"syscalls"`
}

type archMap struct {
	Arch      specs.Arch   `json:"architecture"`
	SubArches []specs.Arch `json:"subArchitectures"`
}

type dockerSyscall struct {
	specs.LinuxSyscall
	Name     string `json:"name"` // Docker's before 2016
	Includes when   `json:"includes"`
	Excludes when   `json:"excludes"`
}

// A when says for which containers and hosts a rule is.
type when struct {
	Caps      []string `json:"caps"`
	Arches    []string `json:"arches"`
	MinKernel string   `json:"minKernel"`
}

// DefaultProfile is Docker's default profile for a container whose bounding
// set is caps, on a kernel of architecture arch (a GOARCH).
func DefaultProfile(caps Caps, arch string) (*specs.LinuxSeccomp, error) {
	return ReadProfile(bytes.NewReader(defaultJSON), caps, arch)
}

// ReadProfile reads a profile as "docker run --security-opt seccomp=FILE"
// takes it: an OCI linux.seccomp with Docker's archMap, includes, excludes and
// its old "name". What it leaves out for caps, arch (a GOARCH) and the running
// kernel is not in the result. A profile that says nothing is nil: unconfined,
// as in Docker. Errors are fault.Invalid, for more than MaxProfile bytes too.
func ReadProfile(r io.Reader, caps Caps, arch string) (*specs.LinuxSeccomp, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxProfile+1))
	if err != nil {
		return nil, &fault.Error{Op: "read seccomp profile", Err: err}
	}
	if len(text) > MaxProfile {
		return nil, badProfile(fmt.Errorf("it is larger than %d bytes", MaxProfile))
	}
	var p dockerProfile
	if err := json.Unmarshal(text, &p); err != nil {
		return nil, badProfile(err)
	}
	if p.DefaultAction == "" && len(p.Syscalls) == 0 {
		return nil, nil
	}
	return p.resolve(caps, arch)
}

func badProfile(err error) error {
	return &fault.Error{Op: "read seccomp profile", Kind: fault.Invalid, Err: err}
}

// resolve decides Docker's conditions.
func (p *dockerProfile) resolve(caps Caps, arch string) (*specs.LinuxSeccomp, error) {
	if len(p.Architectures) > 0 && len(p.ArchMap) > 0 {
		return nil, badProfile(errors.New(`it has both "architectures" and "archMap"`))
	}
	out := &specs.LinuxSeccomp{DefaultAction: p.DefaultAction, DefaultErrnoRet: p.DefaultErrnoRet, Architectures: p.Architectures,
		Flags: p.Flags, ListenerPath: p.ListenerPath, ListenerMetadata: p.ListenerMetadata}
	native, _ := nativeArch(arch)
	for _, m := range p.ArchMap {
		if m.Arch == native {
			out.Architectures = append([]specs.Arch{native}, m.SubArches...)
			break
		}
	}
	for i, s := range p.Syscalls {
		if s.Name != "" && len(s.Names) > 0 {
			return nil, badProfile(fmt.Errorf(`syscalls[%d] has both "name" and "names"`, i))
		}
		keep, err := s.applies(caps, arch)
		if err != nil {
			return nil, badProfile(fmt.Errorf("syscalls[%d]: %w", i, err))
		}
		if s.Name != "" {
			s.Names = []string{s.Name}
		}
		if keep {
			out.Syscalls = append(out.Syscalls, s.LinuxSyscall)
		}
	}
	return out, nil
}

// applies reports whether every include and no exclude holds.
func (s *dockerSyscall) applies(caps Caps, arch string) (bool, error) {
	arch = libseccompArch(arch)
	newEnough, err := s.Includes.kernel(true)
	if err != nil {
		return false, err
	}
	tooNew, err := s.Excludes.kernel(false)
	if err != nil {
		return false, err
	}
	holds := func(name string) bool { n := capNumber(name); return n >= 0 && caps.Has(1<<n) }
	lacks := func(name string) bool { return !holds(name) }
	return newEnough && !tooNew &&
		(len(s.Includes.Arches) == 0 || slices.Contains(s.Includes.Arches, arch)) && !slices.Contains(s.Excludes.Arches, arch) &&
		!slices.ContainsFunc(s.Includes.Caps, lacks) && !slices.ContainsFunc(s.Excludes.Caps, holds), nil
}

// libseccompArch is how includes and excludes call a GOARCH.
func libseccompArch(goarch string) string {
	switch goarch {
	case "386":
		return "x86"
	case "loong64":
		return "loongarch64"
	}
	return goarch
}

// kernel reports whether the running kernel is at least MinKernel; none is
// where there is no MinKernel.
func (w when) kernel(none bool) (bool, error) {
	if w.MinKernel == "" {
		return none, nil
	}
	want, ok := kernelVersion(w.MinKernel)
	if !ok {
		return false, fmt.Errorf("minKernel %q: want VERSION.REVISION, such as 4.8", w.MinKernel)
	}
	return runningKernel() >= want, nil
}

// kernelVersion is "4.8" as a number that can be compared.
func kernelVersion(s string) (int, bool) {
	major, minor, ok := strings.Cut(s, ".")
	x, err1 := strconv.ParseUint(major, 10, 8)
	y, err2 := strconv.ParseUint(minor, 10, 8)
	return int(x)<<8 | int(y), ok && err1 == nil && err2 == nil && x+y > 0
}

// runningKernel reads /proc/sys/kernel/osrelease; a kernel that does not say
// is taken for the oldest that Kiste runs on.
var runningKernel = sync.OnceValue(func() int {
	text, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	major, rest, _ := strings.Cut(string(text), ".")
	digits := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if v, ok := kernelVersion(major + "." + rest[:max(digits, 0)]); ok {
		return v
	}
	return 5<<8 | 14
})
