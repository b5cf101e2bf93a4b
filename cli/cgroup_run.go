package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"kiste/cli/option"
	"kiste/fault"
	"kiste/internal/sys"
	"kiste/kernel/cgroup"
)

// Anonymous groups are named after the process that made them; groups that
// "cgroup set PID" makes, after the process that it moved. Both are swept by
// later calls once that process is gone and they are empty.
const (
	groupOfRun = "run"
	groupOfPID = "pid"
)

func cgroupRunCommand() *Command {
	var lim cgroup.Limits
	var rates groupRates
	var name string
	return &Command{
		Name:  "cgroup run",
		Args:  "COMMAND [ARG...]",
		Short: "run a command with limits on CPU, memory, I/O and processes",
		Long: `Makes a cgroup, enters it and becomes COMMAND: no other process stays. Without a limit the command is still a group that can be looked at, frozen and killed.

The group is below /kiste, or below a group that was delegated to you, or, started inside another "kiste cgroup run", below that one's: both limits hold then. With --name it stays when the command has ended, with its counters, and can be used again, until "kiste cgroup remove". Without, it is removed by a later "kiste cgroup" command once it is empty.` + groupRatesHelp + `

The exit code is the command's; 125 if the group could not be made, 126 if the command cannot be executed, 127 if it is not there.`,
		Options: append(cgroupOptions(&lim), rates.row(), option.Row{"--name", "NAME", "name of the group; it then stays", option.String(&name)}),
		Min:     1, Max: -1, Rest: true, Complete: "command",
		Run: func(_ context.Context, _ *Env, args []string) error {
			file, err := lookCommand(args[0])
			if err != nil {
				return err
			}
			if err := enterGroup(name, lim, rates); err != nil {
				return WithCode(125, err)
			}
			return become(file, args)
		},
	}
}

// enterGroup moves this process, and with it the thread that calls become,
// into a group of its own.
func enterGroup(name string, lim cgroup.Limits, rates groupRates) error {
	l, parent, err := cgroupPlace()
	if err != nil {
		return err
	}
	group := freshBelow(l, parent)
	if name != "" {
		if group, err = namedGroup(parent, name); err != nil {
			return err
		}
	}
	o := cgroup.Options{Exist: name != ""}
	if g, err := cgroup.Open(l, group); err == nil {
		o.Now = g.Now()
	}
	steps, err := cgroup.Compile(l, group, lim, o)
	if err != nil {
		return err
	}
	steps, err = withLeaf(l, group, steps)
	if err != nil {
		return err
	}
	if err := cgroup.Do(steps); err != nil {
		return err
	}
	runtime.LockOSThread() // until exec: version 1 is joined by this thread
	err = rates.set(l, group)
	if err == nil {
		err = joinGroup(l, group, steps)
	}
	if err != nil {
		if name == "" {
			cgroup.Undo(steps)
		}
		return err
	}
	return nil
}

// withLeaf adds the group in which the processes are, where that is not group
// itself.
func withLeaf(l cgroup.Layout, group string, steps []cgroup.Step) ([]cgroup.Step, error) {
	leaf := cgroup.Leaf(l, group)
	if leaf == group {
		return steps, nil
	}
	more, err := cgroup.Compile(l, leaf, cgroup.Limits{}, cgroup.Options{Exist: true})
	if err != nil {
		return nil, err
	}
	last := more[len(more)-1]
	last.Value = "" // so that Undo removes it
	if _, err := os.Stat(last.Path); err == nil {
		last.Value = "shared"
	}
	return append(steps, last), nil
}

// joinGroup enters by the cheap way of package cgroup's comment.
func joinGroup(l cgroup.Layout, group string, steps []cgroup.Step) error {
	for _, tasks := range cgroup.Tasks(steps) {
		if err := sys.WriteKnob(tasks, "0"); err != nil {
			return &fault.Error{Op: "enter cgroup", On: group, Err: err}
		}
	}
	if l.Unified.Mount == "" {
		return nil
	}
	dir := l.Unified.Dir(cgroup.Leaf(l, group))
	return cgroup.Step{Op: cgroup.Attach, Path: dir + "/cgroup.procs", Value: "0"}.Do()
}

// freshBelow is the path of an anonymous group below parent that is not there
// yet: numbers of processes are used again, and what runs "kiste cgroup run"
// several times in a row, by exec, has one number.
func freshBelow(l cgroup.Layout, parent string) string {
	for i := 0; ; i++ {
		group := path.Join(parent, groupOfRun+"-"+strconv.Itoa(os.Getpid()))
		if i > 0 {
			group = path.Join(parent, fmt.Sprintf("%s.%d-%d", groupOfRun, i, os.Getpid()))
		}
		if _, err := cgroup.Open(l, group); err != nil {
			return group
		}
	}
}

// cgroupPlace detects the layout and finds where groups go, after sweeping
// what earlier calls left there.
func cgroupPlace() (cgroup.Layout, string, error) {
	l, err := cgroup.Detect()
	if err != nil {
		return l, "", err
	}
	parent, err := cgroup.Place(l)
	if err != nil {
		return l, "", err
	}
	cgroup.Sweep(l, parent, groupOfRun, groupOfPID)
	return l, parent, nil
}

// namedGroup is the path of the group with the given name.
func namedGroup(parent, name string) (string, error) {
	bad := func(why string) (string, error) {
		return "", &fault.Error{Op: "name cgroup", On: name, Kind: fault.Invalid, Err: errors.New(why)}
	}
	_, err := strconv.Atoi(name)
	switch {
	case err == nil:
		return bad("a number is the number of a process")
	case strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/", r)
	}):
		return bad("want letters, digits, _, -, . and / between them")
	}
	clean, err := cgroup.CheckPath(name)
	if err != nil {
		return "", err
	}
	return path.Join(parent, clean), nil
}

// cgroupOptions is the table of options that say limits, as Docker names them.
func cgroupOptions(lim *cgroup.Limits) []option.Row {
	return []option.Row{
		{"-m, --memory", "SIZE", "most memory; what needs more is killed", option.Size(&lim.Memory.Limit)},
		{"--memory-swap", "SIZE", "most memory and swap together; -1: no limit on swap", option.Size(&lim.Memory.Swap)},
		{"--memory-reservation", "SIZE", "memory kept when others ask for it", option.Size(&lim.Memory.Reservation)},
		{"--memory-swappiness", "N", "how readily it swaps, 0 to 100 (cgroup version 1)", optionalVar(&lim.Memory.Swappiness, 100)},
		{"--cpus", "N", "most CPUs, such as 1.5", cpuCountVar(&lim.CPU.CPUs)},
		{"--cpu-shares", "N", "weight against others, 2 to 262144; normal is 1024", unsignedVar(&lim.CPU.Shares, 262144)},
		{"--cpu-quota", "MICROSECONDS", "CPU time in each period; -1: no limit", option.Int(&lim.CPU.Quota)},
		{"--cpu-period", "MICROSECONDS", "length of a period", unsignedVar(&lim.CPU.Period, 1_000_000)},
		{"--cpu-burst", "MICROSECONDS", "CPU time that may be saved up", optionalVar(&lim.CPU.Burst, 1_000_000)},
		{"--cpu-idle", "", "run only when nobody else wants the CPU", idleVar(&lim.CPU.Idle)},
		{"--cpuset-cpus", "LIST", "CPUs to run on, such as 0-2,5", option.String(&lim.CPU.Cpus)},
		{"--cpuset-mems", "LIST", "memory nodes to use", option.String(&lim.CPU.Mems)},
		{"--pids, --pids-limit", "N", "most processes and threads; -1: no limit", option.Int(&lim.Pids)},
		{"--io-weight, --blkio-weight", "N", "weight of block I/O, 10 to 1000", ioWeightVar(&lim.IO.Weight)},
		{"--device-read-bps", "DEVICE:SIZE", "most bytes read a second", deviceRateVar(&lim.IO.ReadBPS, true)},
		{"--device-write-bps", "DEVICE:SIZE", "most bytes written a second", deviceRateVar(&lim.IO.WriteBPS, true)},
		{"--device-read-iops", "DEVICE:N", "most reads a second", deviceRateVar(&lim.IO.ReadIOPS, false)},
		{"--device-write-iops", "DEVICE:N", "most writes a second", deviceRateVar(&lim.IO.WriteIOPS, false)},
		{"--device-allow", "RULE", `allow devices, such as "c 1:3 rw"; all others are denied then`, deviceRuleVar(&lim.Devices)},
		{"--set", "FILE=VALUE", "write VALUE into a file of cgroup version 2, such as memory.high=50M", knobVar(lim)},
	}
}

func cpuCountVar(p *float64) option.Var {
	return func(s string) error {
		v, err := strconv.ParseFloat(s, 64)
		if err != nil || !(v >= 0.01 && v <= 1<<16) {
			return errors.New("want a number of CPUs such as 1.5, at least 0.01")
		}
		*p = v
		return nil
	}
}

func unsignedVar(p *uint64, most uint64) option.Var {
	return func(s string) error {
		v, err := strconv.ParseUint(s, 10, 64)
		if err != nil || v > most {
			return fmt.Errorf("want a whole number up to %d", most)
		}
		*p = v
		return nil
	}
}

func optionalVar(p **uint64, most uint64) option.Var {
	return func(s string) error {
		var v uint64
		*p = &v
		return unsignedVar(&v, most)(s)
	}
}

func idleVar(p **int64) option.Var {
	return func(s string) error {
		var on bool
		err := option.Bool(&on)(s)
		var v int64
		if on {
			v = 1
		}
		*p = &v
		return err
	}
}

func ioWeightVar(p *uint16) option.Var {
	return func(s string) error {
		v, err := strconv.ParseUint(s, 10, 16)
		if err != nil || v < 10 || v > 1000 {
			return errors.New("want a whole number from 10 to 1000")
		}
		*p = uint16(v)
		return nil
	}
}

// deviceRateVar takes "/dev/sda:1M" or "8:0:1M".
func deviceRateVar(p *[]cgroup.Rate, size bool) option.Var {
	return func(s string) error {
		i := strings.LastIndexByte(s, ':')
		if i < 0 {
			return errors.New("want a device and a rate, such as /dev/sda:1M")
		}
		major, minor, err := blockDevice(s[:i])
		if err != nil {
			return err
		}
		rate, err := strconv.ParseInt(s[i+1:], 10, 64)
		if size {
			rate, err = option.ParseSize(s[i+1:])
		}
		if err != nil || rate < 0 {
			return errors.New("want a rate such as 1000, or 1M for bytes")
		}
		*p = append(*p, cgroup.Rate{Major: major, Minor: minor, Rate: uint64(rate)})
		return nil
	}
}

func blockDevice(s string) (major, minor int64, err error) {
	if a, b, ok := strings.Cut(s, ":"); ok {
		x, err1 := strconv.ParseUint(a, 10, 32)
		y, err2 := strconv.ParseUint(b, 10, 32)
		if err1 == nil && err2 == nil {
			return int64(x), int64(y), nil
		}
	}
	x, y, block, err := sys.DeviceNumber(s)
	if err == nil && !block {
		err = errors.New("it is not a block device")
	}
	if errors.Is(err, syscall.ENODEV) {
		err = errors.New("it is not a device")
	}
	return int64(x), int64(y), err
}

func deviceRuleVar(p *[]cgroup.DeviceRule) option.Var {
	return func(s string) error {
		r, err := cgroup.ParseDeviceRule(s, true)
		if err != nil {
			return errors.New(`want a rule such as "c 1:3 rwm"`)
		}
		*p = append(*p, r)
		return nil
	}
}

func knobVar(lim *cgroup.Limits) option.Var {
	return func(s string) error {
		name, value, ok := strings.Cut(s, "=")
		if !ok || name == "" {
			return errors.New("want FILE=VALUE")
		}
		if lim.Unified == nil {
			lim.Unified = map[string]string{}
		}
		lim.Unified[name] = value
		return nil
	}
}
