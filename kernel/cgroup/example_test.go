package cgroup_test

import (
	"context"
	"errors"
	"fmt"

	"kiste/fault"
	"kiste/kernel/cgroup"
)

// A group is data before it is a directory: the same limits for a host with
// version 2 and for one with version 1.
func ExampleCompile() {
	v2 := cgroup.Layout{Unified: cgroup.Hierarchy{Mount: "/sys/fs/cgroup", Root: "/", V2: true, Controllers: []string{"memory", "pids"}}}
	v1 := cgroup.Layout{V1: []cgroup.Hierarchy{
		{Mount: "/sys/fs/cgroup/memory", Root: "/", Controllers: []string{"memory"}},
		{Mount: "/sys/fs/cgroup/freezer", Root: "/", Controllers: []string{"freezer"}},
	}}
	limits := cgroup.Limits{Memory: cgroup.Memory{Limit: 64 << 20, Swap: 96 << 20}}
	for _, l := range []cgroup.Layout{v2, v1} {
		steps, err := cgroup.Compile(l, "/web", limits, cgroup.Options{})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(l.Kind())
		for _, s := range steps {
			fmt.Println(" ", s)
		}
	}
	// Output:
	// v2
	//   mkdir     /sys/fs/cgroup/web
	//   need      /sys/fs/cgroup/web/cgroup.controllers memory
	//   write     /sys/fs/cgroup/web/memory.max "67108864"
	//   write     /sys/fs/cgroup/web/memory.swap.max "33554432"
	// v1
	//   mkdir     /sys/fs/cgroup/memory/web
	//   write     /sys/fs/cgroup/memory/web/memory.limit_in_bytes "67108864"
	//   write     /sys/fs/cgroup/memory/web/memory.memsw.limit_in_bytes "100663296"
	//   mkdir     /sys/fs/cgroup/freezer/web
}

// What a host cannot do is said, with limit and controller.
func ExampleCompile_unsupported() {
	l := cgroup.Layout{Unified: cgroup.Hierarchy{Mount: "/sys/fs/cgroup", Root: "/", V2: true, Controllers: []string{"cpu"}}}
	_, err := cgroup.Compile(l, "/web", cgroup.Limits{Pids: 32}, cgroup.Options{})
	fmt.Println(err)
	fmt.Println(errors.Is(err, fault.Unsupported))
	// Output:
	// limit "pids.limit": cgroup controller pids: no hierarchy of this host has it
	// true
}

// Rules of devices are an allow list.
func ExampleParseDeviceRule() {
	rule, err := cgroup.ParseDeviceRule("c 1:3 rw", true)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%c %d:%d %s\n", rule.Type, rule.Major, rule.Minor, rule.Access)
	fmt.Println(len(cgroup.Program([]cgroup.DeviceRule{rule})), "instructions on version 2")
	// Output:
	// c 1:3 rw
	// 24 instructions on version 2
}

// A group is made, read and removed; its name is all that has to be kept.
func ExampleCreate() {
	l, err := cgroup.Detect()
	if err != nil {
		fmt.Println(err)
		return
	}
	parent, err := cgroup.Delegated(l)
	if err != nil {
		fmt.Println("0 processes <nil>\n<nil>") // not root and nothing delegated: err says what to do
		return
	}
	group, err := cgroup.Create(l, parent+"/example", cgroup.Limits{}, cgroup.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer cgroup.Tidy(l, parent)
	pids, err := group.Procs()
	fmt.Println(len(pids), "processes", err)
	fmt.Println(group.Remove(context.Background()))
	// Output:
	// 0 processes <nil>
	// <nil>
}
