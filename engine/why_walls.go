package engine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"kiste/container/plan"
	"kiste/engine/inspect"
	"kiste/kernel/cgroup"
	"kiste/kernel/privilege"
)

// A container's walls say no by an error to the program alone. From outside it
// can be seen only where the kernel writes it down: processes that a filter has
// killed; with denials=log what the filter has refused, and on
// hosts where audit is on what Landlock has. What a lack of capabilities has
// refused nobody writes down. What is left is what the program itself has said.

// denials say which calls a filter or Landlock has refused, and what lets them pass.
func denials(c *Container, all []inspect.Denial) (found []Finding) {
	const most = 8
	for i, d := range slices.SortedStableFunc(slices.Values(all), func(a, b inspect.Denial) int { return b.Times - a.Times }) {
		if i == most {
			found = append(found, Finding{fmt.Sprintf("And %d other calls were refused.", len(all)-most), ""})
			break
		}
		verb := "refused"
		if d.Killed {
			verb = "killed the process for"
		}
		if d.Blockers != "" {
			found = append(found, Finding{fmt.Sprintf("Landlock refused %s (%s), which %s made%s.", d.Call, d.Blockers, orSomething(d.Program), times(d.Times)), "--security-opt landlock=off"})
			continue
		}
		f := Finding{Says: fmt.Sprintf("Its filter of system calls %s %s, which %s made%s.", verb, d.Call, orSomething(d.Program), times(d.Times))}
		f.Remedy = c.passFor(d.Call)
		found = append(found, f)
	}
	return found
}

func orSomething(program string) string {
	if program == "" {
		return "a program"
	}
	return program
}

func times(n int) string {
	if n > 1 {
		return fmt.Sprintf(" %d times", n)
	}
	return ""
}

// passFor is the option that lets a call pass the filter.
func (c *Container) passFor(call string) string {
	const own = "--security-opt seccomp=FILE with a profile that allows it; seccomp=unconfined has no filter"
	if c.Wishes.Security.Seccomp != "" {
		return "allow it in " + c.Wishes.Security.Seccomp
	}
	names := privilege.Unlocks(call, c.caps(), runtime.GOARCH)
	if len(names) == 0 {
		return own
	}
	return "--cap-add " + strings.TrimPrefix(names[0], "CAP_") + ", with which it may be made; or " + own
}

func (c *Container) caps() privilege.Caps {
	if c.Result == nil || c.Result.Spec.Process.Capabilities == nil {
		return 0
	}
	caps, _ := privilege.ParseCaps(c.Result.Spec.Process.Capabilities.Bounding)
	return caps
}

// A clue is what programs print when something is wrong, and what that means
// in a container: what fits of guesses, or else what it always means.
type clue struct {
	words  string
	also   []string // other words for it: of other languages, and the error's own name
	says   func(*Container) string
	remedy string
}

func (c clue) lower() []string {
	all := []string{strings.ToLower(c.words)}
	for _, w := range c.also {
		all = append(all, strings.ToLower(w))
	}
	return all
}

func plainly(says string) func(*Container) string { return func(*Container) string { return says } }

// clues are looked for in the last words of a container that has failed.
func clues() []clue {
	return []clue{
		{"Operation not permitted", []string{"EPERM"}, refusedBy, "--security-opt denials=log, and kiste why after the next try, names calls that the filter refuses; --cap-add gives a capability"},
		{"Permission denied", []string{"EACCES"}, plainly("the permissions of a file do not let its user in, or a capability is missing that would"), "look at owners and modes (ls -ln); of a directory of the host, with a user namespace, those of -v ...:U"},
		{"Read-only file system", []string{"EROFS"}, plainly("it has written where nothing can be written: --read-only, a mount with :ro, or a part of /proc and /sys"), "a volume or --tmpfs for what it writes"},
		{"No space left on device", []string{"ENOSPC"}, plainly("a file system is full, in bytes or in files, or the host has no more of what is asked for"), "kiste system df, df -i; more of --shm-size or tmpfs-size, where it is one of these"},
		{"Too many open files", []string{"EMFILE"}, plainly("it has reached its limit of open files, or the host's of inotify"), "--ulimit nofile=SOFT:HARD"},
		{"Cannot allocate memory", []string{"ENOMEM"}, plainly("the kernel gave no memory: a limit, or the host has none left"), "more of --memory (-m)"},
		{"Resource temporarily unavailable", nil, plainly("a process or thread could not be started, most likely"), "more of --pids-limit, or of --ulimit nproc"},
		{"Address already in use", []string{"Address in use", "EADDRINUSE"}, plainly("somebody in its network listens there already"), "another port, or a network of its own"},
		{nameUnknown, []string{"Could not resolve host", "no such host", "bad address", "ENOTFOUND"}, plainly("nobody knows a name that it asked for"), "--network and --dns"},
		{nameFailed, []string{"EAI_AGAIN"}, plainly("no name server could be asked from its network"), "--network and --dns"},
		{"Network is unreachable", []string{"ENETUNREACH"}, plainly("its network has no way there"), "--network"},
		{"exec format error", nil, plainly("a program in it is for another processor, or a script without #!"), "an image for this processor: --platform"},
	}
}

// refusedBy says which walls may have refused something.
func refusedBy(c *Container) string {
	says := "the kernel does not permit it; by which wall cannot be seen from outside. It has these capabilities and no others: "
	names := c.caps().Names()
	for i, n := range names {
		names[i] = strings.TrimPrefix(n, "CAP_")
	}
	if len(names) == 0 {
		names = []string{"none"}
	}
	return says + strings.Join(names, " ")
}

// cluesIn finds what the last words tell, each once.
func cluesIn(c *Container, v Evidence) (found []Finding) {
	all := v.sayings(c)
	for _, clue := range clues() {
		if !slices.ContainsFunc(all, func(s saying) bool { return s.has(clue.lower()...) }) {
			continue
		}
		f, ok := clue.guessed(all)
		if !ok {
			f = Finding{fmt.Sprintf("Its last words have %q: %s.", clue.words, clue.says(c)), clue.remedy}
		}
		found = append(found, f)
	}
	return found
}

// silences say why the kernel does not tell what it was asked to (denials=log).
func silences(c *Container, v Evidence) (all []Finding) {
	switch {
	case !c.Wishes.Security.LogDenials:
	case v.Landlock == 0:
		all = append(all, Finding{"This kernel has no Landlock, so that has refused nothing.", ""})
	case v.Landlock < plan.LandlockLogs:
		all = append(all, Finding{fmt.Sprintf("What Landlock refuses this kernel does not tell: it has version %d of it.", v.Landlock), fmt.Sprintf("a kernel with version %d: Linux 6.15", plan.LandlockLogs)})
	case !v.Audit:
		all = append(all, Finding{"What Landlock refuses this kernel does not tell: it has no audit.", "a kernel with CONFIG_AUDIT"})
	}
	return all
}

// usageAtEnd is what was spent, in the words of one that runs.
func usageAtEnd(s *inspect.Spent) *cgroup.Usage {
	if s == nil {
		return nil
	}
	return &cgroup.Usage{Pids: &cgroup.PidsUsage{Refused: s.Refused, Limit: s.PidsLimit}, CPU: &cgroup.CPUUsage{Periods: s.Periods, Throttled: s.Throttled, ThrottledTime: s.ThrottledTime}}
}
