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
//
// One machine runs the packages listed in tested, with -short, and another one
// beside it kiste-runtime's scripts (runtime_*.txt of test/script), twice: with
// cgroups that it makes itself, and with systemd's, where a kiste-runtime that adds --systemd-cgroup is first
// on the path. Debian's criu works on this kernel, which tracks memory too, so
// nothing of checkpoint and restore may be skipped.
//
// A third has containers that live (living.sh): that they survive the service that
// starts them, whole systems, units that kiste generate makes, quadlets, a boot;
// volumes with a limit, which is a quota of a project (quota.sh), and volumes that a
// server of NFS has (nfs.sh); containers under profiles of AppArmor (apparmor.sh); Podman of an
// ordinary user with kiste-runtime (podman.sh), which needs delegated cgroups. Before
// that it runs Kiste's scripts about networks that need nothing but a kernel and
// common programs.
//
// A fourth boots with SELinux, and enforces Debian's policy: with that, and container.cil beside
// it, since Debian's has no types for containers, selinux.sh sees to it that containers have their
// labels and are kept from everything else.
//
// Left out with systemd's cgroups are the scripts without any (errors, help,
// log, spec), the comparison with runc's JSON (compat), which knows no driver,
// and that of an ordinary user without an instance of systemd (rootless):
// systemd.sh has one with. Left out altogether are scripts of other people's
// engines, which but Podman are not on the disk, and most of those of kiste itself, for which
// root.sh, user.sh and living.sh stand: of those about networks the ones of ordinary
// users (network.sh), of Docker and CNI plugins, and of rates and crowds, which
// count on a faster machine; and the rooms above a container (monitor, logfile,
// engine), whose tests count on a faster machine.
package vm
