package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/cli/option"
	"kiste/fault"
)

// An update is what the options of update ask for.
type update struct {
	file      string
	weight    uint16
	memory    specs.LinuxMemory
	cpu       specs.LinuxCPU
	pids      *int64
	ignored   string
	l3, memBw string
}

func (u *update) options() []option.Row {
	number := func(p **uint64) option.Var {
		return pointer(p, func(s string) (uint64, error) { return strconv.ParseUint(s, 10, 64) })
	}
	signed := func(p **int64) option.Var {
		return pointer(p, func(s string) (int64, error) { return strconv.ParseInt(s, 10, 64) })
	}
	size := func(p **int64) option.Var { return pointer(p, option.ParseSize) }
	return []option.Row{
		{"-r, --resources", "FILE", "linux.resources as JSON; -: from standard input. No other option counts then", option.String(&u.file)},
		{"--blkio-weight", "N", "share of the disks' time, 10 to 1000", weightVar(&u.weight)},
		{"--cpu-period", "MICROSECONDS", "of the quota; 0: the kernel's", number(&u.cpu.Period)},
		{"--cpu-quota", "MICROSECONDS", "CPU time in each period; -1: no limit", signed(&u.cpu.Quota)},
		{"--cpu-burst", "MICROSECONDS", "unused quota that may be saved up", number(&u.cpu.Burst)},
		{"--cpu-share", "N", "share of the CPUs' time", number(&u.cpu.Shares)},
		{"--cpu-rt-period", "MICROSECONDS", "of the realtime quota; 0: the kernel's", number(&u.cpu.RealtimePeriod)},
		{"--cpu-rt-runtime", "MICROSECONDS", "realtime CPU time in each period", signed(&u.cpu.RealtimeRuntime)},
		{"--cpuset-cpus", "LIST", "CPUs to run on: 0-3,7", option.String(&u.cpu.Cpus)},
		{"--cpuset-mems", "LIST", "memory nodes to use", option.String(&u.cpu.Mems)},
		{"--cpu-idle", "0|1", "1: only when nothing else runs (SCHED_IDLE)", signed(&u.cpu.Idle)},
		{"--memory", "SIZE", "the most memory; -1: no limit", size(&u.memory.Limit)},
		{"--memory-reservation", "SIZE", "memory that is kept when the host is short of it", size(&u.memory.Reservation)},
		{"--memory-swap", "SIZE", "the most of memory and swap together; -1: no limit", size(&u.memory.Swap)},
		{"--pids-limit", "N", "the most processes and threads; -1: no limit", signed(&u.pids)},
		{"--l3-cache-schema", "SCHEMA", "of Intel RDT: L3:0=ff;1=f", option.String(&u.l3)},
		{"--mem-bw-schema", "SCHEMA", "of Intel RDT: MB:0=50;1=70", option.String(&u.memBw)},
		{"--kernel-memory", "SIZE", "of no effect: kernels have it no more", option.String(&u.ignored)},
		{"--kernel-memory-tcp", "SIZE", "of no effect likewise", option.String(&u.ignored)},
	}
}

func updateVerb() *verb {
	u := &update{}
	return &verb{
		name: "update", args: oneContainer, min: 1, max: 1,
		short: "change a container's limits",
		long: `What is not given stays as it is. --resources takes the form of linux.resources
in config.json; devices are not changed.`,
		options:  u.options(),
		examples: []string{"update --memory 256m --pids-limit 64 web", "update --resources limits.json web"},
		run: func(s *session, args []string) error {
			c, err := s.containers().Load(args[0])
			if err != nil {
				return err
			}
			r, err := u.resources(s.env.In)
			if err != nil {
				return err
			}
			if u.ignored != "" {
				s.log.warn("limits of kernel memory are of no effect")
			}
			if u.l3 != "" || u.memBw != "" {
				if err := c.UpdateClass(u.l3, u.memBw); err != nil {
					return err
				}
			}
			return c.Update(r)
		},
	}
}

func weightVar(p *uint16) option.Var {
	return func(s string) error {
		v, err := strconv.ParseUint(s, 0, 16)
		if err != nil {
			return errors.New("want a number from 10 to 1000")
		}
		*p = uint16(v)
		return nil
	}
}

// maxResources bounds what is read.
const maxResources = 1 << 20

// resources are what is to be changed: those of the file, or of the options.
func (u *update) resources(in io.Reader) (*specs.LinuxResources, error) {
	if u.file == "" {
		return u.given(), nil
	}
	if u.file != "-" {
		f, err := os.Open(u.file)
		if err != nil {
			return nil, &fault.Error{Op: "read resources", On: u.file, Err: err}
		}
		defer f.Close()
		in = f
	}
	r, err := readResources(in)
	if err != nil {
		return nil, &fault.Error{Op: "read resources", On: u.file, Kind: fault.Invalid, Err: err}
	}
	return r, nil
}

// readResources reads the first JSON document of in.
func readResources(in io.Reader) (*specs.LinuxResources, error) {
	text := &io.LimitedReader{R: in, N: maxResources + 1}
	r := &specs.LinuxResources{}
	err := json.NewDecoder(text).Decode(r)
	if text.N == 0 {
		return nil, fmt.Errorf("more than %d bytes are too many", maxResources)
	}
	return r, err
}

func (u *update) given() *specs.LinuxResources {
	r := &specs.LinuxResources{Memory: &u.memory, CPU: &u.cpu}
	if u.weight != 0 {
		r.BlockIO = &specs.LinuxBlockIO{Weight: &u.weight}
	}
	if u.pids != nil {
		r.Pids = &specs.LinuxPids{Limit: u.pids}
	}
	return r
}
