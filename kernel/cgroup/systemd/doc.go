// Package systemd lets systemd make the cgroup of a container: a scope, whose
// limits systemd knows and does not take back.
//
//	takes    the name of a scope, the Steps of package cgroup, annotations
//	gives    Properties as data; a Manager that starts, changes and stops units
//	touches  systemd's socket, or the message bus; nothing under /sys/fs/cgroup
//	state    systemd's
//
// On a host with systemd the tree of cgroups is systemd's. A group that it does
// not know of works, but it may rewrite the limits of one that it does. So a
// runtime asks it for a scope with the container's first process in it, tells
// it the limits in its own words, and then writes them, and those that systemd
// has no words for, by Steps as ever: the scope is delegated.
//
// By hand it is
//
//	systemd-run --scope --slice web.slice --unit kiste-abc -p MemoryMax=64M …
//
// The words are derived from the Steps, so each limit is translated in one
// place. What a person may add by annotations is bounded: see Annotations.
//
// # Privileges
//
// Root speaks with the system's instance, another user with his own, which must
// run ("loginctl enable-linger"). No wait is longer than bus.Limit. A Manager is
// not safe for concurrent use.
package systemd
