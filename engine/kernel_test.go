package engine

import (
	"strings"
	"testing"
	"time"
)

const refused = `audit: type=1326 audit(1795895259.844:2874): auid=4294967295 uid=1100000007 gid=0 ses=4294967295 pid=31215 comm="python3" exe="/usr/bin/python3" sig=0 arch=c000003e syscall=165 compat=0 ip=0x7fba2b727e5a code=0x50000`

// What the kernel's log has is told of the container that it is about, and of
// no other.
func TestTestimony(t *testing.T) {
	id := strings.Repeat("ab", 32)
	at := time.Unix(1795895259, 0)
	for _, tt := range []struct {
		name string
		s    suspect
		text string
		want string
	}{
		{"by its users", suspect{users: [][2]uint64{{1100000000, 1100065536}}, since: at}, refused, "mount by /usr/bin/python3"},
		{"by its first process", suspect{pid: 31215, since: at}, refused, "mount by /usr/bin/python3"},
		{"another's", suspect{pid: 7, users: [][2]uint64{{1, 9}}, since: at}, refused, ""},
		{"an earlier one's", suspect{pid: 31215, since: at.Add(time.Minute)}, refused, ""},
		{"killed", suspect{pid: 31215}, strings.Replace(refused, "sig=0", "sig=31", 1), "killed: mount by /usr/bin/python3"},
		{"a name in hexadecimal", suspect{pid: 31215}, strings.Replace(refused, `"/usr/bin/python3"`, "2F622063", 1), `mount by "/b c"`},
		{"a call without a name", suspect{pid: 31215}, strings.Replace(refused, "syscall=165", "syscall=99999", 1), "system call 99999 by /usr/bin/python3"},
		{"out of memory", suspect{id: id}, "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kiste/" + id + ",task_memcg=/kiste/" + id + ",task=big,pid=9,uid=0", "victim big"},
		{"another's memory", suspect{id: id}, "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/kiste/x,task=big,pid=9,uid=0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got testimony
			got.hear(tt.s, tt.text)
			text := ""
			for _, d := range got.denied {
				if d.Killed {
					text += "killed: "
				}
				text += d.Call + " by " + d.Program
			}
			if got.oom != "" {
				text = "victim " + got.oom
			}
			if text != tt.want {
				t.Errorf("got %q; want %q", text, tt.want)
			}
		})
	}
}

// However a message looks, it is read or left, and what is kept is bounded.
func FuzzTestimony(f *testing.F) {
	f.Add(refused)
	f.Add("oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/kiste/x,task=big,pid=9,uid=0")
	f.Fuzz(func(t *testing.T, text string) {
		var got testimony
		for line := range strings.Lines(text) {
			got.hear(suspect{pid: 31215, id: "x", users: [][2]uint64{{0, 1 << 32}}}, line)
		}
		if len(got.denied) > mostDenied {
			t.Errorf("%d calls are remembered", len(got.denied))
		}
	})
}
