package quadlet

import (
	"fmt"
	"strings"
)

// A Service is what the unit of a container that is there is to be: the answer to
// kiste generate systemd.
type Service struct {
	Unit        string   // its name, without ".service"
	Container   string   // name or id
	Start       []string // the command line that starts it, and stays
	Stop        []string
	Remove      []string // when it has stopped; empty: it stays
	Environment []string // "KISTE_LIB=/srv/kiste"
	After       []string
	Wants       []string
	Requires    []string
	Restart     string // systemd's; empty: on-failure
	RestartSec  int    // seconds; 0: systemd's own
	StartLimit  int    // TimeoutStartSec in seconds; 0: systemd's own
	StopLimit   int    // seconds that a stop may take, without the container's own
	Header      bool
}

// patience is what a stop may take beside the container's own time, in seconds.
const patience = 60

// Text is the unit.
func (s *Service) Text() string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			b.WriteString(key + "=" + value + "\n")
		}
	}
	list := func(key string, names []string) { line(key, strings.Join(names, " ")) }
	if s.Header {
		fmt.Fprintf(&b, "# %s.service: made by kiste generate systemd\n\n", s.Unit)
	}
	b.WriteString("[Unit]\n")
	line("Description", "Container "+s.Unit)
	line("Documentation", "man:kiste-generate-systemd(1)")
	list("Wants", append([]string{"network-online.target"}, s.Wants...))
	list("After", append([]string{"network-online.target"}, s.After...))
	list("Requires", s.Requires)
	b.WriteString("\n[Service]\n")
	line("Environment", "KISTE_SYSTEMD_UNIT=%n")
	for _, e := range s.Environment {
		line("Environment", quote(e))
	}
	restart := s.Restart
	if restart == "" {
		restart = "on-failure"
	}
	line("Restart", restart)
	line("RestartSec", number(s.RestartSec))
	line("TimeoutStartSec", number(s.StartLimit))
	line("TimeoutStopSec", number(s.StopLimit+patience))
	line("Type", "notify")
	line("NotifyAccess", "all")
	line("Delegate", "yes")
	line("KillMode", "mixed")
	line("SuccessExitStatus", "143")
	line("ExecStart", Quote(s.Start))
	line("ExecStop", Quote(s.Stop))
	if len(s.Remove) > 0 {
		line("ExecStopPost", "-"+Quote(s.Remove))
	}
	b.WriteString("\n[Install]\nWantedBy=default.target\n")
	return b.String()
}

// number is a count of seconds; none where there are none.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}
