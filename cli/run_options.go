package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"kiste/cli/option"
	"kiste/cli/terminal"
	"kiste/container/bundle"
)

// runChoices are what "kiste run" is told that is no wish about the container.
type runChoices struct {
	Detach bool
	Attach []string // of stdin, stdout, stderr; none: all
	Plan   string   // "" run; "steps" or "calls": print those
	Trace  bool

	Replace bool
	service serviceChoices
	asked   []string // the options as they were typed
}

// runOptions are the options that make a container, with Docker's names. What
// they say goes into w and c.
func runOptions(w *bundle.Wishes, c *runChoices) []option.Row {
	return recorded(slices.Concat(createOptions(w), replaceOption(&c.Replace), serviceOptions(&c.service), []option.Row{
		{"-d, --detach", "", "leave it behind, and print its id", option.Bool(&c.Detach)},
		{"-a, --attach", "STREAM", "attach only these: stdin, stdout, stderr", attachVar(&c.Attach)},
		{"--detach-keys", "KEYS", "typed in a row, they detach (ctrl-p,ctrl-q)", into(&w.DetachKeys, terminal.ParseDetachKeys)},
		{"--sig-proxy", "", "pass signals on to it (--sig-proxy=false: do not)", not(&w.NoSigProxy)},
		{"--plan", "", "print the steps to the kernel in place of making them; --plan=calls prints the system calls", planVar(&c.Plan)},
		{"--trace", "", "print how long each step took", option.Bool(&c.Trace)},
	}), &c.asked)
}

// createOptions are those of "kiste create".
func createOptions(w *bundle.Wishes) []option.Row {
	return slices.Concat(objectOptions(w), processOptions(w), viewOptions(w), wallOptions(w), privilegeOptions(w), runLimitOptions(w))
}

// onlyLocal takes the name of the only driver of volumes that there is.
func onlyLocal(s string) error {
	if s != "local" {
		return fmt.Errorf("error looking up volume plugin %s: plugin %q not found", s, s)
	}
	return nil
}

// checkRuntime takes the names by which scripts ask for what is always there.
func checkRuntime(s string) error {
	if !slices.Contains([]string{"kiste", "runc", "crun", "io.containerd.runc.v2"}, s) {
		return fmt.Errorf("unknown or invalid runtime name: %s", s)
	}
	return nil
}

func replaceOption(p *bool) []option.Row {
	return []option.Row{{"--replace", "", "remove the container that has the name", option.Bool(p)}}
}

func noHealthcheck(w *bundle.Wishes) option.Var {
	return func(s string) error {
		var no bool
		err := option.Bool(&no)(s)
		if no {
			w.Health.Test = []string{"NONE"}
		}
		return err
	}
}

func attachVar(list *[]string) option.Var {
	return func(s string) error {
		s = strings.ToLower(s)
		if s != "stdin" && s != "stdout" && s != "stderr" {
			return fmt.Errorf("valid streams are STDIN, STDOUT and STDERR")
		}
		*list = append(*list, s)
		return nil
	}
}

func planVar(p *string) option.Var {
	return func(s string) error {
		switch s {
		case "true", "steps":
			*p = "steps"
		case "false":
			*p = ""
		case "calls":
			*p = "calls"
		default:
			return fmt.Errorf("want steps or calls")
		}
		return nil
	}
}

// objectOptions are about the container as an object and its streams.
func objectOptions(w *bundle.Wishes) []option.Row {
	return []option.Row{
		{"-i, --interactive", "", "keep stdin open", option.Bool(&w.Interactive)},
		{"-t, --tty", "", "give it a terminal", option.Bool(&w.TTY)},
		{"--rm", "", "remove it, and its anonymous volumes, when it ends", option.Bool(&w.Remove)},
		{"--name", "NAME", "a name for it", func(s string) error { w.Name = s; return bundle.CheckName(s) }},
		{"--cidfile", "FILE", "write its id to a new file", option.String(&w.CIDFile)},
		{"-l, --label", "KEY=VALUE", "a label", labelVar(w, false)},
		{"--label-file", "FILE", "read labels from a file", labelVar(w, true)},
		{"--annotation", "KEY=VALUE", "an annotation of the OCI spec", pairVar(&w.Annotations)},
		{"--pull", "WHEN", "pull the image: always, missing or never", into(&w.Pull, bundle.ParsePull)},
		{"-q, --quiet", "", "say nothing while it is pulled", option.Bool(&w.PullQuietly)},
		{"--platform", "OS/ARCH[/VARIANT]", "of an image for several", func(s string) error { w.Platform = s; return bundle.ParsePlatform(s) }},
		{"--rootfs", "", "the image is a directory, used in place", option.Bool(&w.RootFS)},
		{"--restart", "POLICY", "start it anew when it has ended: no, always, unless-stopped, on-failure[:TIMES]", into(&w.Restart, bundle.ParseRestart)},
		{"--health-cmd", "COMMAND", "asks a shell in it whether it is well", func(s string) error { w.Health.Test = []string{"CMD-SHELL", s}; return nil }},
		{"--health-interval", "TIME", "between two checks (30s)", into(&w.Health.Interval, bundle.ParseHealthTime)},
		{"--health-timeout", "TIME", "of one check (30s)", into(&w.Health.Timeout, bundle.ParseHealthTime)},
		{"--health-retries", "N", "so many in a row that fail: unhealthy (3)", into(&w.Health.Retries, bundle.ParseHealthRetries)},
		{"--health-start-period", "TIME", "in which what fails does not count", into(&w.Health.StartPeriod, bundle.ParseHealthTime)},
		{"--health-start-interval", "TIME", "between two checks in that period (5s)", into(&w.Health.StartInterval, bundle.ParseHealthTime)},
		{"--health-on-failure", "ACTION", "when it is unhealthy: none, kill, restart, stop", into(&w.HealthAction, bundle.ParseHealthAction)},
		{"--no-healthcheck", "", "no check, also not the image's", noHealthcheck(w)},
		{"--log-driver", "DRIVER", "where its output goes: local (the default), json-file, journald, syslog, none", option.String(&w.Log.Driver)},
		{"--log-opt", "KEY=VALUE", "an option of the driver: max-size=10m, max-file=3", pairVar(&w.Log.Options)},
	}
}

// processOptions are about its process.
func processOptions(w *bundle.Wishes) []option.Row {
	return []option.Row{
		{"--entrypoint", "COMMAND", "in place of the image's; empty: none", func(s string) error { w.Entrypoint = []string{s}; return nil }},
		{"-e, --env", "KEY[=VALUE]", "set a variable; a bare KEY takes this environment's", envVar(w)},
		{"--env-file", "FILE", "read variables from a file", envFileVar(w)},
		{"-w, --workdir", "DIR", "start in DIR", option.String(&w.Workdir)},
		{"-u, --user", "USER[:GROUP]", "by name or number", option.String(&w.User)},
		{"--group-add", "GROUP", "a supplementary group", option.Strings(&w.Groups)},
		{"--runtime", "NAME", "kiste, runc and crun all mean kiste, which needs none", checkRuntime},
		{"--init", "", "an init that reaps zombies and passes signals on", option.Bool(&w.Init)},
		{"--systemd", "", "it is a whole system: true (where its command is an init), false, always", into(&w.Systemd, bundle.ParseSystemd)},
		{"--stop-signal", "SIGNAL", "ends it politely", into(&w.StopSignal, bundle.ParseSignal)},
		{"--stop-timeout", "SECONDS", "until it is killed; -1: never", intVar(&w.StopTimeout)},
		{"--umask", "MODE", "its umask, octal", pointer(&w.Umask, bundle.ParseUmask)},
		{"--ulimit", "NAME=SOFT[:HARD]", "a limit of setrlimit(2)", list(&w.Rlimits, bundle.ParseUlimit)},
		{"--oom-score-adj", "N", "-1000 to 1000: how soon it is killed where memory is short", intVar(&w.OOMScoreAdj)},
	}
}

// viewOptions are about what it sees.
func viewOptions(w *bundle.Wishes) []option.Row {
	return []option.Row{
		{"-h, --hostname", "NAME", "its host name", option.String(&w.Hostname)},
		{"--domainname", "NAME", "its NIS domain name", option.String(&w.Domainname)},
		{"--read-only", "", "its root file system is read-only", option.Bool(&w.ReadOnly)},
		{"-v, --volume", "[SOURCE:]TARGET[:OPTIONS]", "a directory of the host or a volume", mountVar(w, bundle.ParseVolume)},
		{"--mount", "KEY=VALUE,...", "a mount: type=bind|volume|tmpfs|image,source=PATH,target=PATH", mountVar(w, bundle.ParseMount)},
		{"--volumes-from", "CONTAINER[:ro]", "the volumes and directories of another container", option.Strings(&w.VolumesFrom)},
		{"--volume-driver", "DRIVER", "of volumes that are made: local", onlyLocal},
		{"--tmpfs", "TARGET[:OPTIONS]", "a file system in memory", list(&w.Mounts, bundle.ParseTmpfs)},
		{"--shm-size", "SIZE", "of /dev/shm (64m)", sizeVar(&w.ShmSize)},
		{"--device", "HOST[:CONTAINER[:rwm]]", "a device of the host", list(&w.Devices, bundle.ParseDevice)},
		{"--device-cgroup-rule", "RULE", "allow devices: \"c 13:* rwm\"", list(&w.DeviceRule, bundle.ParseDeviceRule)},
		{"--add-host", "NAME:IP", "a line of /etc/hosts", list(&w.Hosts, bundle.ParseHost)},
		{"--network-rate", "RATE[:egress][:ingress]", "what it sends and receives on each network at most: 10mbit, 1gbit:ingress, none", checked(&w.NetworkRates, bundle.CheckNetworkRates)},
		{"-p, --publish", "[[ADDRESS:]PORT:]PORT[/PROTOCOL]", "a port of the host that leads to one of its own; ranges as 8000-8009, addresses of IPv6 as [::1]:8000:80", portVar(w)},
		{"-P, --publish-all", "", "all exposed ports, by free ports of the host", option.Bool(&w.PublishAll)},
		{"--expose", "PORT[/PROTOCOL]", "a port that -P publishes", exposeVar(w)},
		{"--dns", "IP", "a name server", checked(&w.DNS, bundle.CheckDNS)},
		{"--dns-search", "DOMAIN", "a domain to search names in", checked(&w.DNSSearch, bundle.CheckLine)},
		{"--dns-option, --dns-opt", "OPTION", "an option of resolv.conf(5)", checked(&w.DNSOptions, bundle.CheckLine)},
	}
}

// wallOptions are about its namespaces.
func wallOptions(w *bundle.Wishes) []option.Row {
	return []option.Row{
		{"--network, --net", "NETWORK", "a network (bridge), none, host, container:NAME, ns:PATH, of an ordinary user pasta or slirp4netns[:OPTION,…], or name=NETWORK,ip=ADDRESS,alias=NAME,…", func(s string) error { return bundle.ParseNetwork(w, s) }},
		{"--ip", "ADDRESS", "its IPv4 address on the first network", into(&w.Place.IP, func(s string) (string, error) { return bundle.ParseIP(s, true) })},
		{"--ip6", "ADDRESS", "its IPv6 address there", into(&w.Place.IP6, func(s string) (string, error) { return bundle.ParseIP(s, false) })},
		{"--mac-address", "ADDRESS", "its MAC address there", into(&w.Place.MAC, bundle.ParseMAC)},
		{"--network-alias, --net-alias", "NAME", "a further name there", option.Strings(&w.Place.Aliases)},
		{"--link-local-ip", "ADDRESS", "a further address there", option.Strings(&w.Place.LinkLocal)},
		{"--pid", "SPACE", "host, private, container:NAME or ns:PATH", spaceVar(&w.PID, "pid")},
		{"--ipc", "SPACE", "host, private, shareable, none, container:NAME or ns:PATH", spaceVar(&w.IPC, "ipc")},
		{"--uts", "SPACE", "host, private or ns:PATH", spaceVar(&w.UTS, "uts")},
		{"--userns", "SPACE", "private (the default), host, keep-id, container:NAME or ns:PATH", spaceVar(&w.UserNS, "userns")},
		{"--cgroupns", "SPACE", "private (the default), host or ns:PATH", spaceVar(&w.CgroupNS, "cgroupns")},
		{"--sysctl", "NAME=VALUE", "a sysctl of its own namespaces", sysctlVar(w)},
	}
}

// privilegeOptions are about what it may ask for.
func privilegeOptions(w *bundle.Wishes) []option.Row {
	return []option.Row{
		{"--cap-add", "CAPABILITY", "add a capability, or ALL", option.Strings(&w.CapAdd)},
		{"--cap-drop", "CAPABILITY", "drop a capability, or ALL", option.Strings(&w.CapDrop)},
		{"--privileged", "", "all capabilities and devices, nothing masked, no filter", option.Bool(&w.Privileged)},
		{"--security-opt", "OPTION", "seccomp=FILE|unconfined, no-new-privileges, systempaths=unconfined, landlock=off, denials=log (see kiste why), apparmor=PROFILE, label=disable, label=type:TYPE (user:, role:, level:, filetype:), label=nested",
			func(s string) error { return bundle.ParseSecurity(&w.Security, s) }},
	}
}

// runLimitOptions are about what it may use.
func runLimitOptions(w *bundle.Wishes) []option.Row {
	l := &w.Limits
	return []option.Row{
		{"-m, --memory", "SIZE", "limit memory: 512m, 2g", sizeVar(&l.Memory)},
		{"--memory-swap", "SIZE", "limit memory and swap together; -1: no limit", sizeVar(&l.MemorySwap)},
		{"--memory-reservation", "SIZE", "memory that it keeps where memory is short", sizeVar(&l.MemoryReservation)},
		{"--memory-swappiness", "N", "0 to 100, or -1", runSwappinessVar(&l.MemorySwappiness)},
		{"--oom-kill-disable", "", "wait for memory in place of being killed", option.Bool(&l.OOMKillDisable)},
		{"--cpus", "N", "limit CPU time: 1.5", into(&l.NanoCPUs, bundle.ParseCPUs)},
		{"-c, --cpu-shares", "N", "relative weight, 1024 by default", option.Int(&l.CPUShares)},
		{"--cpu-period", "MICROSECONDS", "the scheduler's period", option.Int(&l.CPUPeriod)},
		{"--cpu-quota", "MICROSECONDS", "CPU time in each period", option.Int(&l.CPUQuota)},
		{"--cpu-rt-period", "MICROSECONDS", "the real-time scheduler's period", option.Int(&l.CPURTPeriod)},
		{"--cpu-rt-runtime", "MICROSECONDS", "real-time CPU time in each period", option.Int(&l.CPURTRuntime)},
		{"--cpuset-cpus", "LIST", "run on these CPUs: 0-3,7", func(s string) error { l.CpusetCPUs = s; return bundle.CheckCPUSet(s) }},
		{"--cpuset-mems", "LIST", "use these memory nodes", func(s string) error { l.CpusetMems = s; return bundle.CheckCPUSet(s) }},
		{"--pids-limit", "N", "limit processes and threads; -1: no limit", option.Int(&l.Pids)},
		{"--blkio-weight", "N", "relative weight of block I/O, 10 to 1000", runWeightVar(&l.BlkioWeight)},
		{"--blkio-weight-device", "DEVICE:N", "relative weight on one device", list(&l.WeightDevice, bundle.ParseWeightDevice)},
		{"--device-read-bps", "DEVICE:SIZE", "limit bytes read a second", list(&l.ReadBps, bytesRate)},
		{"--device-write-bps", "DEVICE:SIZE", "limit bytes written a second", list(&l.WriteBps, bytesRate)},
		{"--device-read-iops", "DEVICE:N", "limit reads a second", list(&l.ReadIOps, countRate)},
		{"--device-write-iops", "DEVICE:N", "limit writes a second", list(&l.WriteIOps, countRate)},
		{"--cgroup-parent", "PATH", "the cgroup above its own", option.String(&w.CgroupParent)},
	}
}

func bytesRate(s string) (bundle.Throttle, error) { return bundle.ParseThrottle(s, true) }
func countRate(s string) (bundle.Throttle, error) { return bundle.ParseThrottle(s, false) }

// into sets p to what read makes of the value.
func into[T any](p *T, read func(string) (T, error)) option.Var {
	return func(s string) (err error) { *p, err = read(s); return err }
}

// pointer is into for values that may be absent.
func pointer[T any](p **T, read func(string) (T, error)) option.Var {
	return func(s string) error {
		v, err := read(s)
		*p = &v
		return err
	}
}

// list collects what read makes of every value.
func list[T any](p *[]T, read func(string) (T, error)) option.Var {
	return func(s string) error {
		v, err := read(s)
		*p = append(*p, v)
		return err
	}
}

// checked collects values that check lets pass.
func checked(p *[]string, check func(string) error) option.Var {
	return func(s string) error { *p = append(*p, s); return check(s) }
}

// not is a switch whose field says the opposite.
func not(p *bool) option.Var {
	return func(s string) error {
		v := false
		err := option.Bool(&v)(s)
		*p = !v
		return err
	}
}

func intVar(p **int) option.Var { return pointer(p, strconv.Atoi) }

func sizeVar(p *int64) option.Var { return into(p, bundle.ParseSize) }

func runWeightVar(p *uint16) option.Var {
	return into(p, func(s string) (uint16, error) {
		v, err := strconv.ParseUint(s, 10, 16)
		return uint16(v), err
	})
}

// runSwappinessVar takes Docker's -1 for "as it is".
func runSwappinessVar(p **int64) option.Var {
	return func(s string) error {
		v, err := strconv.ParseInt(s, 10, 64)
		if *p = &v; v == -1 {
			*p = nil
		}
		return err
	}
}

func spaceVar(p *bundle.Namespace, kind string) option.Var {
	return into(p, func(s string) (bundle.Namespace, error) { return bundle.ParseNamespace(kind, s) })
}

// mountVar collects mounts; a relative source is below this directory.
func mountVar(w *bundle.Wishes, read func(spec, cwd string) (bundle.Mount, error)) option.Var {
	return list(&w.Mounts, func(s string) (bundle.Mount, error) {
		cwd, err := os.Getwd()
		if err != nil {
			return bundle.Mount{}, err
		}
		return read(s, cwd)
	})
}

func portVar(w *bundle.Wishes) option.Var {
	return func(s string) error {
		ports, err := bundle.ParsePort(s)
		w.Ports = append(w.Ports, ports...)
		return err
	}
}

func exposeVar(w *bundle.Wishes) option.Var {
	return func(s string) error {
		ports, err := bundle.ParseExpose(s)
		w.Expose = append(w.Expose, ports...)
		return err
	}
}

func envVar(w *bundle.Wishes) option.Var {
	return list(&w.Env, func(s string) (string, error) { return bundle.ParseEnv(s, os.LookupEnv) })
}

// envFileVar puts files before single variables, in whichever order they were
// given: a single one wins.
func envFileVar(w *bundle.Wishes) option.Var {
	fromFiles := 0
	return func(name string) error {
		pairs, err := readPairs(name, os.LookupEnv)
		if err != nil {
			return err
		}
		w.Env = slices.Insert(w.Env, fromFiles, pairs...)
		fromFiles += len(pairs)
		return nil
	}
}

// labelVar takes one label, or those of a file, which do not replace single
// ones.
func labelVar(w *bundle.Wishes, file bool) option.Var {
	return func(s string) error {
		pairs, err := []string{s}, error(nil)
		if file {
			pairs, err = readPairs(s, nil)
		}
		if err != nil {
			return err
		}
		for _, pair := range pairs {
			key, value, err := bundle.ParseLabel(pair)
			if err != nil {
				return err
			}
			if _, given := w.Labels[key]; given && file {
				continue
			}
			put(&w.Labels, key, value)
		}
		return nil
	}
}

func pairVar(m *map[string]string) option.Var {
	return func(s string) error {
		key, value, err := bundle.ParseLabel(s)
		if err == nil {
			put(m, key, value)
		}
		return err
	}
}

func sysctlVar(w *bundle.Wishes) option.Var {
	return func(s string) error {
		name, value, err := bundle.ParseSysctl(s)
		if err == nil {
			put(&w.Sysctl, name, value)
		}
		return err
	}
}

func put(m *map[string]string, key, value string) {
	if *m == nil {
		*m = map[string]string{}
	}
	(*m)[key] = value
}

// maxPairsFile is the most that is read of an env or label file.
const maxPairsFile = 16 << 20

func readPairs(name string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPairsFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxPairsFile:
		return nil, fmt.Errorf("%s is larger than %d MiB", name, maxPairsFile>>20)
	}
	pairs, err := bundle.ParseEnvFile(data, lookup)
	if err != nil {
		return nil, fmt.Errorf("invalid file (%s): %w", strings.TrimSpace(name), err)
	}
	return pairs, nil
}
