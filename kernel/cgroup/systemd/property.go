package systemd

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"kiste/fault"
	"kiste/internal/bus"
	"kiste/kernel/cgroup"
)

// A Property is one setting of a unit, in the words of systemd's D-Bus
// interface: org.freedesktop.systemd1(5).
type Property struct {
	Name  string
	Value bus.Value
}

// infinity is how systemd writes no limit.
const infinity = math.MaxUint64

// Scope are the properties of a scope for the container id, but for its first
// process: with all kinds of accounting, delegated, and without the
// dependencies that would end it before others at shutdown. As in runc.
func Scope(u Unit, id string, v2 bool) []Property {
	io := "IOAccounting"
	if !v2 {
		io = "BlockIOAccounting"
	}
	return []Property{
		{"Description", bus.String("container " + id)}, {"Slice", bus.String(u.Slice)}, {"Delegate", bus.Bool(true)}, {"DefaultDependencies", bus.Bool(false)},
		{"MemoryAccounting", bus.Bool(true)}, {"CPUAccounting", bus.Bool(true)}, {io, bus.Bool(true)}, {"TasksAccounting", bus.Bool(true)},
	}
}

// words is a file of cgroupfs and the property for what is written there.
type words struct {
	file     string
	property string
	value    func(string) (bus.Value, error)
}

// filesV2 and filesV1 are what systemd has words for. All else is written to
// cgroupfs alone, and systemd leaves it as it is.
var filesV2 = []words{
	{"memory.max", "MemoryMax", amount}, {"memory.high", "MemoryHigh", amount}, {"memory.low", "MemoryLow", amount}, {"memory.min", "MemoryMin", amount},
	{"memory.swap.max", "MemorySwapMax", amount}, {"cpu.weight", "CPUWeight", amount}, {"pids.max", "TasksMax", tasks},
	{"cpuset.cpus", "AllowedCPUs", bits}, {"cpuset.mems", "AllowedMemoryNodes", bits}, {"io.weight", "IOWeight", amount},
}

var filesV1 = []words{
	{"memory.limit_in_bytes", "MemoryLimit", amount}, {"cpu.shares", "CPUShares", amount}, {"pids.max", "TasksMax", tasks},
	{"blkio.weight", "BlockIOWeight", amount}, {"cpuset.cpus", "AllowedCPUs", bits}, {"cpuset.mems", "AllowedMemoryNodes", bits},
}

// amount reads what the kernel's memparse reads: 64, 64M, max.
func amount(text string) (bus.Value, error) {
	text = strings.TrimPrefix(strings.TrimSpace(text), "default ")
	if text == "max" || text == "-1" {
		return bus.Uint64(infinity), nil
	}
	shift := 0
	if i := strings.IndexByte("KMGTPE", strings.ToUpper("x" + text)[len(text)]); i >= 0 {
		text, shift = text[:len(text)-1], 10*(i+1)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err == nil && n<<shift>>shift != n {
		err = strconv.ErrRange
	}
	return bus.Uint64(n << shift), err
}

// tasks is at least one: systemd knows no unit without.
func tasks(text string) (bus.Value, error) {
	v, err := amount(text)
	v.Number = max(v.Number, 1)
	return v, err
}

// bits is a list of CPUs or nodes as a set of bits, the lowest first.
func bits(text string) (bus.Value, error) {
	const most = 1 << 16
	var set []byte
	for part := range strings.SplitSeq(strings.TrimSpace(text), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.ParseUint(first, 10, 32)
		b, err2 := strconv.ParseUint(last, 10, 32)
		if err := errors.Join(err1, err2); err != nil || a > b || b >= most {
			return bus.Value{}, fmt.Errorf("%q is no list such as 0-2,5", text)
		}
		for n := a; n <= b; n++ {
			for uint64(len(set)) <= n/8 {
				set = append(set, 0)
			}
			set[n/8] |= 1 << (n % 8)
		}
	}
	if len(set) == 0 {
		return bus.Value{}, errors.New("it is empty")
	}
	return bus.Bytes(set), nil
}

// Properties tells what steps write in systemd's words, and gives steps that
// write the same as systemd will: of CPU time it knows whole percents, so quotas
// are rounded up. Created says that the unit is to be made with them: some
// cannot be changed later. Version gives systemd's version where it matters.
// The steps are not changed. As in runc.
func Properties(steps []cgroup.Step, created bool, version func() (int, error)) ([]Property, []cgroup.Step, error) {
	t := translation{steps: slices.Clone(steps), version: version, created: created, found: map[string]bus.Value{}}
	for i := range t.steps {
		if err := t.step(&t.steps[i]); err != nil {
			return nil, nil, err
		}
	}
	if err := t.quota(); err != nil {
		return nil, nil, err
	}
	return t.properties(), t.steps, nil
}

type translation struct {
	steps   []cgroup.Step
	version func() (int, error)
	created bool
	found   map[string]bus.Value
	devices []Property
	period  uint64
	limit   *cgroup.Step // the quota: the file cpu.max, or cpu.cfs_quota_us
}

func (t *translation) step(s *cgroup.Step) error {
	switch s.Op {
	case cgroup.Guard:
		t.devices = deviceProperties(s.Rules)
	case cgroup.Write:
		if s.Try {
			return nil // a later step says it again
		}
		files := filesV1
		if s.V2 {
			files = filesV2
		}
		if err := t.special(s); err != nil {
			return err
		}
		for _, f := range append([]cgroup.File{{Name: path.Base(s.Path), Value: s.Value}}, s.Or...) {
			i := slices.IndexFunc(files, func(w words) bool { return w.file == f.Name })
			if i < 0 || strings.Contains(f.Value, ":") {
				continue // of one device alone
			}
			v, err := files[i].value(f.Value)
			if err != nil {
				return &fault.Error{Op: "tell systemd", On: strings.TrimPrefix(s.For, "linux.resources."), Kind: fault.Invalid, Err: err}
			}
			t.found[files[i].property] = v
		}
	}
	return nil
}

// special are files that are no property alone.
func (t *translation) special(s *cgroup.Step) error {
	switch path.Base(s.Path) {
	case "cpu.cfs_period_us":
		t.period, _ = strconv.ParseUint(s.Value, 10, 64)
	case "cpu.cfs_quota_us", "cpu.max":
		t.limit = s
	case "cpu.idle":
		return t.idle(s.V2 && strings.TrimSpace(s.Value) == "1")
	case "memory.oom.group":
		return t.oomGroup(strings.TrimSpace(s.Value))
	}
	return nil
}

// idle is a weight of zero, from 252 on. Not being idle is any other weight.
func (t *translation) idle(on bool) error {
	if !on {
		return nil
	}
	v, err := t.version()
	if err == nil && v >= 252 {
		t.found["CPUWeight"] = bus.Uint64(0)
	}
	return err
}

func (t *translation) oomGroup(value string) error {
	policy, ok := map[string]string{"0": "continue", "1": "kill"}[value]
	if !ok || !t.created {
		return nil
	}
	v, err := t.version()
	if err == nil && v >= 253 {
		t.found["OOMPolicy"] = bus.String(policy)
	}
	return err
}

const (
	defaultPeriod = 100_000 // microseconds: the kernel's
	second        = 1_000_000
	percent       = second / 100
)

// quota is microseconds in each second, in whole percents.
func (t *translation) quota() error {
	quota, period := int64(0), t.period
	if t.limit != nil {
		q, p, _ := strings.Cut(strings.TrimSpace(t.limit.Value), " ")
		var err1, err2 error
		if q != "max" {
			quota, err1 = strconv.ParseInt(q, 10, 64)
		}
		if p != "" {
			period, err2 = strconv.ParseUint(p, 10, 64)
		}
		if err := errors.Join(err1, err2); err != nil || quota > 1<<40 || period > 1<<40 {
			return &fault.Error{Op: "tell systemd", On: path.Base(t.limit.Path), Kind: fault.Invalid, Err: fmt.Errorf("%q is no limit of CPU time", t.limit.Value)}
		}
	}
	if period != 0 {
		t.found["CPUQuotaPeriodUSec"] = bus.Uint64(period)
	}
	switch {
	case t.limit == nil:
		return nil
	case quota <= 0:
		t.found["CPUQuotaPerSecUSec"] = bus.Uint64(infinity)
		return nil
	case period == 0:
		period = defaultPeriod
	}
	each := uint64(quota) * second / period
	if rest := each % percent; rest != 0 {
		each += percent - rest
		rounded := strconv.FormatUint(each*period/second, 10)
		_, p, both := strings.Cut(t.limit.Value, " ")
		if t.limit.Value = rounded; both {
			t.limit.Value += " " + p
		}
	}
	t.found["CPUQuotaPerSecUSec"] = bus.Uint64(each)
	return nil
}

// properties are what was found, in the order of their names, devices first:
// a list is emptied before it is filled.
func (t *translation) properties() []Property {
	out := slices.Clone(t.devices)
	for _, name := range slices.Sorted(maps.Keys(t.found)) {
		out = append(out, Property{name, t.found[name]})
	}
	return out
}

// deviceProperties is an allow list in systemd's words. It has none for an
// exception from all, and none for all devices of one minor number: there
// systemd denies all, or those, until the container's own rules are put in the
// place of systemd's, which is at once.
func deviceProperties(rules []cgroup.DeviceRule) []Property {
	const entry = "(ss)"
	allow, except, err := cgroup.Reduce(rules)
	policy, list := "strict", []bus.Value{}
	switch {
	case err != nil:
	case allow && len(except) == 0:
		policy = "auto"
	case !allow:
		for _, r := range except {
			if node := deviceNode(r); node != "" {
				list = append(list, bus.Struct(bus.String(node), bus.String(r.Access)))
			}
		}
	}
	out := []Property{{"DevicePolicy", bus.String(policy)}, {"DeviceAllow", bus.Array(entry)}}
	if len(list) > 0 {
		out = append(out, Property{"DeviceAllow", bus.Array(entry, list...)})
	}
	return out
}

// deviceNode names devices of one type as systemd.resource-control(5) does.
func deviceNode(r cgroup.DeviceRule) string {
	kind := map[byte]string{'b': "block", 'c': "char"}[r.Type]
	switch {
	case r.Major < 0 && r.Minor < 0:
		return kind + "-*"
	case r.Major < 0:
		return ""
	case r.Minor < 0:
		return kind + "-" + strconv.FormatInt(r.Major, 10)
	}
	return fmt.Sprintf("/dev/%s/%d:%d", kind, r.Major, r.Minor)
}
