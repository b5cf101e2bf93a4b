// Package host knows what this host can do: one table of powers, each with a
// name, a probe and a remedy.
//
//	takes    nothing
//	gives    Powers: have or not, and what a person does to get one
//	touches  /proc and /sys, reading; harmless probing system calls
//	state    probes are run once a process and remembered
//
// "kiste doctor" prints the table, a failing step takes its hint from it, and
// a test names its need from it. "Power", since "capability" is Linux's word
// for something else. Safe for concurrent use.
package host

import (
	"os"
	"sync"
)

// A Power is something that a host may or may not be able to do for us.
type Power struct {
	Name   string // one word, as in $KISTE_REQUIRE
	Text   string // what it is good for, one line
	Remedy string // what a person does to get it

	probe func() bool
	found *found
}

// found is what a probe has found. The table of powers is data that the linker
// lays out: no start makes it.
type found struct {
	once sync.Once
	have bool
}

// Have probes it, once.
func (p Power) Have() bool {
	p.found.once.Do(func() { p.found.have = p.probe() })
	return p.found.have
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// UserMap is this process's map of users, as in user_namespaces(7); empty where
// it is not to be seen.
func UserMap() string {
	b, _ := os.ReadFile("/proc/self/uid_map")
	return string(b)
}
