package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"kiste/test/bench/verdict"
)

// An engine is one of those that keep containers.
type engine struct {
	name    string
	command []string // "docker", "-H", …
	env     []string
	image   string
	process func(pid, command string) bool // is one of the engine's own
}

// crowd is how many containers there are at once.
const crowd = 100

// shell is a command line of the engine's, in which $E stands for its command.
func (e engine) shell(script string) []string {
	return []string{"sh", "-c", "E='" + strings.Join(e.command, " ") + "'; " + script}
}

// addLive adds what is done with containers that live on. A hundred of them
// stay meanwhile, so that a list has something to show.
func (b *bench) addLive(engines []engine) error {
	for _, e := range engines {
		many := fmt.Sprintf("for i in $(seq %d); do $E create --network none --name crowd$i %s sleep 600; done >/dev/null", crowd, e.image)
		if err := b.once(e, many); err != nil {
			return err
		}
		b.ends = append(b.ends, func() { _ = b.once(e, "$E rm -f $($E ps -aq) >/dev/null") })
	}
	for _, e := range engines {
		if err := b.once(e, "$E run -d --network none --name runner "+e.image+" sleep 6000 >/dev/null"); err != nil {
			return err
		}
		b.add(e.name+" exec", false, append(slices.Clone(e.command), "exec", "runner", "true"), e.env)
	}
	for _, e := range engines {
		b.add(e.name+" run -d, rm -f", false, e.shell(lifeScript(e)), e.env)
		b.add(e.name+" ps of 100", false, append(slices.Clone(e.command), "ps", "-a"), e.env)
	}
	return b.addAlone(engines)
}

func lifeScript(e engine) string {
	return "id=$($E run -d --network none " + e.image + " sleep 600) && $E rm -f $id"
}

// addAlone adds a life where no container runs, in a store of its own: the
// monitor is started for it, which is gone again when the next round comes.
func (b *bench) addAlone(engines []engine) error {
	if len(engines) == 0 || engines[0].name != "kiste" {
		return nil
	}
	e := engines[0]
	e.env = []string{"KISTE_LIB=" + b.file("alone/lib"), "KISTE_RUN=" + b.file("alone/run")}
	if err := b.once(e, "$E import "+b.file("root.tar")+" "+e.image+" >/dev/null"); err != nil {
		return err
	}
	b.add("kiste run -d, rm -f alone", false, e.shell(lifeScript(e)), e.env)
	return nil
}

// once runs a script that is not measured.
func (b *bench) once(e engine, script string) error {
	one := &entry{name: e.name, args: e.shell(script), env: e.env}
	return one.run()
}

// A gathering is a hundred containers, started at the same time and removed.
type gathering struct {
	name   string
	took   time.Duration
	memory int64 // bytes of all processes of the engine, divided among the containers
}

// gather starts the hundred, looks at what the engine's processes have of memory,
// and removes them.
func (b *bench) gather(e engine) (g gathering, err error) {
	g.name = e.name
	if err := b.once(e, "$E rm -f runner >/dev/null"); err != nil {
		return g, err
	}
	before := e.memory()
	start := time.Now()
	err = b.once(e, fmt.Sprintf("for i in $(seq %d); do $E start crowd$i >/dev/null & done; wait; test $($E ps -q | wc -l) = %d", crowd, crowd))
	if err != nil {
		return g, err
	}
	g.took = time.Since(start)
	time.Sleep(time.Second)
	g.memory = (e.memory() - before) / crowd
	if e.name == "kiste" { // which has none when no container runs
		g.memory = e.memory() / crowd
	}
	start = time.Now()
	err = b.once(e, fmt.Sprintf("for i in $(seq %d); do $E rm -f crowd$i >/dev/null & done; wait; test $($E ps -aq | wc -l) = 0", crowd))
	g.took += time.Since(start)
	return g, err
}

// memory adds up the proportional set sizes of the engine's processes: Pss of
// proc_pid_smaps(5), in bytes.
func (e engine) memory() (sum int64) {
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lines {
		text, err := os.ReadFile(file)
		dir := filepath.Dir(file)
		if err != nil || !e.process(filepath.Base(dir), string(text)) {
			continue
		}
		sum += pss(dir + "/smaps_rollup")
	}
	return sum
}

func pss(file string) int64 {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

// ofKiste are the monitor, its guard, and the holders.
func ofKiste(_, command string) bool {
	return strings.HasSuffix(command, "kiste\x00__monitor\x00") || strings.HasPrefix(command, "kiste-holder\x00")
}

// ofDocker are the daemon, its containerd and the shims.
func ofDocker(_, command string) bool {
	name := filepath.Base(strings.SplitN(command, "\x00", 2)[0])
	return name == "dockerd" || name == "containerd" || strings.HasPrefix(name, "containerd-shim")
}

// reportLive tells of the gatherings, kiste's first.
func reportLive(all []gathering) (code int) {
	fmt.Printf("\n%-30s %12s %20s\n", fmt.Sprintf("%d containers", crowd), "up and gone", "memory for each")
	for _, g := range all {
		fmt.Printf("%-30s %12s %17d kB\n", g.name, milliseconds(g.took), g.memory>>10)
	}
	fmt.Println()
	code = verdict.Print("kiste, memory for each idle one, in MB", float64(all[0].memory)/(1<<20), 1, "%.3f")
	if len(all) > 1 {
		code = max(code, verdict.Print(fmt.Sprintf("kiste / %s, %d up and gone", all[1].name, crowd), float64(all[0].took)/float64(all[1].took), 1.0/5, "%.3f"))
	}
	return code
}

func (b *bench) gatherAll(engines []engine) (int, error) {
	if len(engines) == 0 || engines[0].name != "kiste" {
		return 1, errors.New("kiste did not run")
	}
	var all []gathering
	for _, e := range engines {
		g, err := b.gather(e)
		if err != nil {
			return 1, fmt.Errorf("%s: %w", e.name, err)
		}
		all = append(all, g)
	}
	return reportLive(all), nil
}
