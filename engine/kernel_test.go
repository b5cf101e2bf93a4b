package engine

import (
	"strings"
	"testing"
	"time"
)

const refused = `audit: type=1326 audit(1795895259.844:2874): auid=4294967295 uid=1100000007 gid=0 ses=4294967295 pid=31215 comm="python3" exe="/usr/bin/python3" sig=0 arch=c000003e syscall=165 compat=0 ip=0x7fba2b727e5a code=0x50000`

// As Linux 6.18 writes it, with audit on.
const barred = `audit: type=1423 audit(1795911766.537:4925): domain=10089b2e0 blockers=fs.make_char path="/dev" dev="vda" ino=10021576
audit: type=1424 audit(1795911766.537:4925): domain=10089b2e0 status=allocated mode=enforcing pid=31210 uid=0 exe="/x" comm="x"
audit: type=1300 audit(1795911766.537:4925): arch=c000003e syscall=133 success=no exit=-13 a0=ffffff9c a1=55ce47392928 a2=241 a3=1b6 items=0 ppid=9795 pid=31215 auid=4294967295 uid=0 gid=0 euid=0 suid=0 fsuid=0 egid=0 sgid=0 fsgid=0 tty=(none) ses=4294967295 comm="mknod" exe="/bin/busybox" key=(null)`

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
		{"by Landlock", suspect{pid: 31215, since: at}, barred, "fs.make_char: mknod by /bin/busybox"},
		{"by Landlock another's", suspect{pid: 7, since: at}, barred, ""},
		{"a call of another record", suspect{pid: 31215, since: at}, strings.Replace(barred, ":4925", ":4924", 1), ""},
		{"out of memory", suspect{id: id}, "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/kiste/" + id + ",task_memcg=/kiste/" + id + ",task=big,pid=9,uid=0", "victim big"},
		{"another's memory", suspect{id: id}, "oom-kill:constraint=CONSTRAINT_MEMCG,oom_memcg=/kiste/x,task=big,pid=9,uid=0", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got testimony
			for line := range strings.SplitSeq(tt.text, "\n") {
				got.hear(tt.s, line)
			}
			text := ""
			for _, d := range got.denied {
				if d.Blockers != "" {
					text += d.Blockers + ": "
				}
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
	f.Add(barred)
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
