package main

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A cost is processors' time, in seconds.
type cost struct {
	machine float64 // of the whole machine, softirqs included
	own     float64 // of this process, with the softirqs that its calls end with
}

func (c cost) since(b cost) cost  { return cost{c.machine - b.machine, c.own - b.own} }
func (c cost) per(n float64) cost { return cost{c.machine / n, c.own / n} }

// costs is what has been spent until now: proc_stat(5), getrusage(2).
func costs() (cost, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cost{}, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	field := strings.Fields(line)
	if len(field) < 8 || field[0] != "cpu" {
		return cost{}, errors.New("/proc/stat does not begin with the processors' times")
	}
	var c cost
	for _, i := range []int{1, 2, 3, 6, 7} { // user, nice, system, irq, softirq
		n, err := strconv.ParseFloat(field[i], 64)
		if err != nil {
			return cost{}, err
		}
		c.machine += n / 100 // USER_HZ
	}
	var u syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	c.own = time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	return c, err
}
