package privilege_test

import (
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"kiste/kernel/privilege"
)

// Docker's --cap-drop ALL --cap-add NET_BIND_SERVICE.
func ExampleAdjust() {
	set, err := privilege.Adjust(privilege.DefaultCaps, []string{"NET_BIND_SERVICE"}, []string{"ALL"})
	fmt.Println(set, err)
	fmt.Println(set.Text()[0])
	// Output:
	// cap_net_bind_service <nil>
	// may bind ports below 1024
}

// A profile that refuses one call becomes a short program.
func ExampleCompile() {
	filter, err := privilege.Compile(&specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"reboot"}, Action: specs.ActErrno}},
	}, "arm64")
	for _, in := range filter.Instructions {
		fmt.Printf("%#02x %d %d %#x\n", in.Op, in.Jt, in.Jf, in.K)
	}
	fmt.Println(err)
	// Output:
	// 0x20 0 0 0x4
	// 0x15 0 4 0xc00000b7
	// 0x20 0 0 0x0
	// 0x15 0 1 0x8e
	// 0x06 0 0 0x50001
	// 0x06 0 0 0x7fff0000
	// 0x06 0 0 0x80000000
	// <nil>
}

func ExampleParseRlimit() {
	l, err := privilege.ParseRlimit("nofile=1024:2048")
	fmt.Println(l.Name, l.Soft, l.Hard, err)
	// Output: nofile 1024 2048 <nil>
}

// Under this ruleset /usr can be read, /tmp be written, and nothing else be
// opened. Its Attr is what landlock_create_ruleset(2) takes.
func ExampleRuleset() {
	rules := privilege.FilesOnly([]string{"/usr"}, []string{"/tmp"}).For(3)
	fmt.Println(len(rules.Attr()), "bytes,", len(rules.Paths), "paths")
	// Output: 8 bytes, 2 paths
}

func ExampleShow() {
	report, err := privilege.Show(1 << 30)
	fmt.Println(report.Name, err)
	// Output: show process "1073741824": there is no such process
}
