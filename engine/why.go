package engine

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"syscall"
	"time"

	"kiste/container/bundle"
	"kiste/container/logfile"
	"kiste/engine/event"
	"kiste/engine/inspect"
	"kiste/host"
	"kiste/kernel/cgroup"
	"kiste/kernel/privilege"
)

// A Finding is something that is known of what a container does or why it has
// ended: a sentence, and the remedy, which may be empty.
type Finding struct{ Says, Remedy string }

// Evidence is what Why goes by, beside the container's document.
type Evidence struct {
	Signals []syscall.Signal // that kiste sent since it was started, in their order
	Usage   *cgroup.Usage    // of one that runs; nil: not known
	Log     []string         // its last lines
	Denied  []inspect.Denial // by the filter of one that runs

	Landlock int  // the version of it in the kernel; 0: none
	Audit    bool // the kernel knows audit

	Network NetworkEnds // of who serves its network
	Plugged error       // what CNI plugins find wrong with its networks
	Now     time.Time
}

// lastLines is how many lines of the log are looked at.
const lastLines = 50

// Evidence gathers what is known of a container. What cannot be read is left
// out.
func (e *Engine) Evidence(c *Container) Evidence {
	v := Evidence{Now: time.Now(), Landlock: privilege.LandlockABI(), Audit: host.Audits()}
	if !c.State.StartedAt.IsZero() {
		v.Signals = e.signalsOf(c, v.Now)
	}
	if c.runs() && c.Cgroup != "" {
		v.Usage = usageOf(c.Cgroup)
	}
	if c.runs() && c.Wishes.Security.LogDenials {
		v.Denied = c.suspect().ask().denied
	}
	v.Network, v.Plugged = e.networkEnds(c.ID), e.checkPlugged(c)
	_ = e.Logs(c, logfile.Selection{Tail: lastLines}, func(l *logfile.Entry) error {
		v.Log = append(v.Log, string(l.Line))
		return nil
	})
	return v
}

// signalsOf finds in the events which signals kiste has sent.
func (e *Engine) signalsOf(c *Container, now time.Time) (all []syscall.Signal) {
	_ = event.Listen(context.Background(), e.Store, event.Span{Since: c.State.StartedAt, Until: now}, func(v event.Event) error {
		if v.Actor.ID == c.ID && v.Action == "kill" {
			if n, err := strconv.Atoi(v.Actor.Attributes["signal"]); err == nil {
				all = append(all, syscall.Signal(n))
			}
		}
		return nil
	})
	return all
}

func usageOf(path string) *cgroup.Usage {
	l, err := cgroup.Detect()
	if err != nil {
		return nil
	}
	g, err := cgroup.Open(l, path)
	if err != nil {
		return nil
	}
	u, err := g.Usage()
	if err != nil {
		return nil
	}
	return &u
}

// Why says why a container has ended, does not start, or is slow. It is pure.
func Why(c *Container, v Evidence) []Finding {
	all := whyOfState(c, v)
	if lost := c.State.LogLost; lost != "" {
		all = append(all, Finding{"Parts of its log are lost " + lost + ".", "room where the log is, less output, or --log-opt max-size at run"})
	}
	if left := c.State.Unplugged; left != "" {
		all = append(all, Finding{"CNI plugins have not taken it from their networks, and may keep its addresses and ports: " + left + ".", "mend that; kiste gc, kiste rm and its next start tell them again"})
	}
	return all
}

func whyOfState(c *Container, v Evidence) []Finding {
	switch c.State.Status {
	case inspect.Created:
		return neverStarted(c)
	case inspect.Running, inspect.Paused:
		return whileItRuns(c, v)
	case inspect.Restarting:
		return append([]Finding{{fmt.Sprintf("It has ended with code %d and is going to be started anew by its policy %s, for the %s time, after a pause of %s.",
			c.State.ExitCode, c.Wishes.Restart.Name, ordinal(c.State.Restarts), c.State.Delay), "kiste stop " + c.Name + " leaves it stopped"}}, whyEnded(c, v)...)
	}
	return whyEnded(c, v)
}

func ordinal(n int) string {
	suffix := "th"
	if n%100 < 11 || n%100 > 13 {
		suffix = map[int]string{1: "st", 2: "nd", 3: "rd"}[n%10]
		if suffix == "" {
			suffix = "th"
		}
	}
	return strconv.Itoa(n) + suffix
}

func neverStarted(c *Container) []Finding {
	if c.State.Error == "" {
		return []Finding{{"It was made and never started.", "kiste start " + c.Name}}
	}
	return []Finding{{"It could not be started: " + c.State.Error + ".", startRemedy(c.State.ExitCode)}}
}

// startRemedy is what usually helps where the start ended with an exit code.
func startRemedy(code int) string {
	switch code {
	case 126:
		return "the file must be executable for the container's user (chmod +x), for this processor, and begin with #! if it is a script"
	case 127:
		return "name a program that the image has, with its path; if the file is there, the interpreter that it names may be missing"
	}
	return `"kiste doctor" lists what this host can do`
}

func whileItRuns(c *Container, v Evidence) []Finding {
	all := []Finding{{"It runs, since " + v.Now.Sub(c.State.StartedAt).Round(time.Second).String() + ".", ""}}
	if c.State.Status == inspect.Paused {
		all = []Finding{{"It is paused: none of its processes goes on.", "kiste unpause " + c.Name}}
	}
	all = append(all, v.Network.findings()...)
	if v.Plugged != nil {
		all = append(all, Finding{"CNI plugins say that its network is not as they made it: " + v.Plugged.Error() + ".", "restart the container"})
	}
	if v.Usage != nil {
		all = append(all, shortages(v.Usage)...)
	}
	return append(all, denials(c, v.Denied)...)
}

// shortages are what a container that runs has too little of.
func shortages(u *cgroup.Usage) (all []Finding) {
	if p := u.Pids; p != nil && p.Refused > 0 {
		all = append(all, Finding{fmt.Sprintf("%d times it could not start a process or thread: its limit is %d.", p.Refused, p.Limit), "more of --pids-limit at run or by kiste update"})
	}
	if cpu := u.CPU; cpu != nil && cpu.Throttled > 0 {
		all = append(all, Finding{fmt.Sprintf("It was held back in %d of %d periods, for %s in all, since it had used up its CPU time.", cpu.Throttled, cpu.Periods, cpu.ThrottledTime.Round(time.Millisecond)), "more of --cpus at run or by kiste update"})
	}
	return all
}

func whyEnded(c *Container, v Evidence) []Finding {
	s := c.State
	if s.Error != "" {
		return []Finding{{"It could not be started: " + s.Error + ".", startRemedy(s.ExitCode)}}
	}
	all := []Finding{ending(c, v)}
	if s.OOMKilled {
		all = append(all, outOfMemory(c))
	}
	if u := usageAtEnd(s.Spent); u != nil {
		all = append(all, shortages(u)...)
	}
	if s.Spent != nil && s.Spent.PeakMemory > 0 && !s.OOMKilled && c.Wishes.Limits.Memory > 0 {
		all = append(all, Finding{fmt.Sprintf("Its memory was %s at the most, of %s.", mebibytes(s.Spent.PeakMemory), mebibytes(c.Wishes.Limits.Memory)), ""})
	}
	all = append(all, denials(c, s.Denied)...)
	if s.ExitCode != 0 && !s.OOMKilled && len(s.Denied) == 0 {
		all = append(all, cluesIn(c, v)...)
		all = append(all, silences(c, v)...)
	}
	return all
}

func outOfMemory(c *Container) Finding {
	victim, limit := "a process of it", ""
	if c.State.Victim != "" {
		victim = "its process " + c.State.Victim
	}
	if n := c.Wishes.Limits.Memory; n > 0 {
		limit = " of " + mebibytes(n)
	}
	if s := c.State.Spent; s != nil && s.PeakMemory > 0 {
		limit += " (" + mebibytes(s.PeakMemory) + " at the most)"
	}
	return Finding{"The kernel has killed " + victim + ", since its memory had reached the limit" + limit + ".", "more of --memory (-m) at run or by kiste update, or less use of it"}
}

func mebibytes(n int64) string {
	return strconv.FormatFloat(math.Round(float64(n)/(1<<20)*100)/100, 'f', -1, 64) + " MiB"
}

// ending explains the exit code.
func ending(c *Container, v Evidence) Finding {
	code := c.State.ExitCode
	switch {
	case c.State.AtBoot:
		return Finding{"It ended when the host went down.", "--restart unless-stopped at run, and kiste start --boot when the host starts"}
	case code == unseen && c.Lasting:
		return Finding{"It ended with code 255, or nobody saw how it ended: its monitor had been killed.", ""}
	case code > 128 && code <= 128+64:
		return bySignal(c, v, syscall.Signal(code-128))
	}
	for _, m := range meanings() {
		if m.code == code {
			return Finding{fmt.Sprintf("It ended by itself with code %d: %s.", code, m.says), m.remedy}
		}
	}
	return Finding{fmt.Sprintf("It ended by itself with code %d, whose meaning only its program knows.", code), ""}
}

type meaning struct {
	code         int
	says, remedy string
}

func meanings() []meaning {
	return []meaning{
		{0, "it has done what it had to do", "a container lives as long as its first process, which must not go into the background"},
		{1, "an error of its own, which it may have told of in its log", ""},
		{2, "most programs mean by it that they were called with wrong words", ""},
		{125, "many programs mean by it that they failed before they had begun", ""},
		{126, "a shell in it found a program that it could not execute", "chmod +x, or another image: that program may be for another processor"},
		{127, "a shell in it did not find a program", "look at PATH, and at whether the image has it"},
	}
}

// bySignal explains an end by a signal. A shell as first process gives the same
// code where its last command ended so.
func bySignal(c *Container, v Evidence, s syscall.Signal) Finding {
	name := signalName(s)
	f := Finding{fmt.Sprintf("%s (code %d) ended it", name, 128+int(s)), ""}
	sent := false
	for _, had := range v.Signals {
		sent = sent || had == s
	}
	switch {
	case sent && s == syscall.SIGKILL && len(v.Signals) > 1:
		f.Says += ": kiste stop sent " + signalName(v.Signals[0]) + " first, and it did not end in time."
		f.Remedy = "its first process must take the signal: --init, or exec in its script, or another --stop-signal; or give it more time by --stop-timeout"
	case sent:
		f.Says += ", which kiste sent when somebody stopped, killed or removed it."
	case s == syscall.SIGKILL && c.State.OOMKilled:
		f.Says += "."
	case s == syscall.SIGKILL:
		f.Says += ". Kiste has not sent it: somebody else on this host has, or a process in the container, or the kernel, where the host itself had no memory left (dmesg tells)."
	default:
		m := meaningOf(s)
		f.Says, f.Remedy = f.Says+": "+m.says+".", m.remedy
	}
	return f
}

func signalName(s syscall.Signal) string {
	if name, err := bundle.ParseSignal(strconv.Itoa(int(s))); err == nil {
		return name
	}
	return "signal " + strconv.Itoa(int(s))
}

type signalMeaning struct {
	signal       syscall.Signal
	says, remedy string
}

// signalMeanings is what is known of signals that end programs.
func signalMeanings() []signalMeaning {
	return []signalMeaning{
		{syscall.SIGHUP, "its terminal was closed, or somebody asked it to read its configuration again", ""},
		{syscall.SIGINT, "somebody has typed control-C, or sent what that sends", ""},
		{syscall.SIGQUIT, "somebody has typed control-\\, or sent what that sends", ""},
		{syscall.SIGILL, "it came upon an instruction that this processor does not have", "an image made for an older processor"},
		{syscall.SIGABRT, "it gave up by itself: a check of its own or of its libraries failed", ""},
		{syscall.SIGBUS, "it used memory that has nothing behind it: a file that became shorter, or a full /dev/shm", "more of --shm-size at run"},
		{syscall.SIGFPE, "it divided by zero, or the like", ""},
		{syscall.SIGSEGV, "it used memory that it does not have, by a fault of its own or of its libraries", ""},
		{syscall.SIGPIPE, "who read what it wrote had gone", ""},
		{syscall.SIGALRM, "a timer of its own ran out", ""},
		{syscall.SIGTERM, "somebody has asked it to end", ""},
		{syscall.SIGXCPU, "it has used more CPU time than its limit allows", "--ulimit cpu= at run"},
		{syscall.SIGXFSZ, "it has written a larger file than its limit allows", "--ulimit fsize= at run"},
		{syscall.SIGSYS, "its filter of system calls does not let it make one that it made", "--security-opt seccomp=FILE with a profile that allows it; seccomp=unconfined shows whether it is that"},
	}
}

func meaningOf(s syscall.Signal) signalMeaning {
	for _, m := range signalMeanings() {
		if m.signal == s {
			return m
		}
	}
	return signalMeaning{s, "what sends it is not known", ""}
}
