// Package vm is the lane of the tests that runs in a virtual machine: a Debian
// with systemd, the kernel of Debian 12 and cgroup version 2 alone, emulated by
// qemu, so that it needs nothing of this host's kernel.
//
//	takes    the packages to test, from this tree
//	gives    a test
//	touches  test/cache, a qemu process
//	state    test/cache keeps the disk between runs
//
// The host's own kernel runs the same tests faster; this lane shows that they
// hold on the oldest kernel of the promise's users, with systemd in charge of
// the cgroups, as root and as an ordinary user in a session of his own.
package vm
