// Package kiste is the house of a container engine; this page is the story of
// one container on its way through it, and no code.
//
//	kiste run --memory 64M debian sh
//
// "debian" is a name as Docker users write it. [kiste/image/reference] reads it
// as docker.io/library/debian:latest. [kiste/image/catalog] knows which image
// has that name here. If none has, kiste starts its bigger brother, kisted, for
// only that one links TLS and decompression: [kiste/engine/fetch] asks a
// registry ([kiste/image/registry]) for the manifest, and as the layers come in
// [kiste/image/layer] unpacks them, checking every digest on the way, into
// directories of [kiste/image/snapshot].
//
// From then on the image is two values: a list of mounts that make its root,
// and a configuration that says what to run. In [kiste/engine] the wings meet:
// what the image wants and what the person asked for become an OCI runtime
// specification, made by [kiste/container/bundle], which touches nothing.
//
// [kiste/container/plan] compiles that into steps, and the steps of the child
// into system calls, with their arguments, as data. "kiste run --plan" prints
// them. What the steps are is known by the heart, five rooms that do not know
// each other nor what a container is:
//
//   - [kiste/kernel/chroot]: what it sees as /
//   - [kiste/kernel/namespace]: what it takes for the world
//   - [kiste/kernel/cgroup]: what it may use
//   - [kiste/kernel/network]: whom it can reach
//   - [kiste/kernel/privilege]: what it may ask for
//
// [kiste/container/process] carries the plan out: it forks, and the child does
// nothing but the calls on the list, the last of which is execve(2). The shell
// runs. When it ends, its exit code is kiste's own, and nothing stays behind
// but what [kiste/store] was told to keep.
//
// Whatever fails on the way is a [kiste/fault.Error]: what was tried, on what,
// why it failed, and what to do about it; the last from the table of powers in
// [kiste/host]. Whatever takes long tells [kiste/progress]. All system calls
// are made in internal/sys. [kiste/cli] puts words to all of this.
//
// ARCHITECTURE.md has the picture, and house_test.go holds it up.
package kiste
