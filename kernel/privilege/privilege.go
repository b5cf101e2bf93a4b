// Package privilege says what a process may ask of the kernel: capabilities,
// system calls (seccomp), files and ports (Landlock), resource limits, and
// no_new_privs.
//
//	takes    names as Docker and OCI write them; profiles; a process id
//	gives    numbers, filters and structs ready for the kernel; Apply; Report
//	touches  the credentials of the calling thread; /proc, reading
//	state    the kernel's, and there is no way back: every wall outlives exec
//
// Five walls, each of its own kind. Capabilities split root's power into 41
// parts. A seccomp filter is a small program that sees the number and the
// arguments of each system call and allows, refuses or reports it. Landlock
// takes away files and TCP ports. Limits bound what is used. no_new_privs
// makes sure that no setuid program gives back what was taken.
//
// The first half of this package is pure: Compile turns an OCI profile into
// classic BPF, Ruleset into the bytes that Landlock takes, Adjust does
// Docker's --cap-add and --cap-drop. container/plan puts these into its list
// of calls. The second half acts: Apply changes the calling thread just before
// exec, Show reads /proc and says in words what a process may do.
//
// On the command line it is
//
//	kiste privilege run --cap-drop ALL --seccomp default --landlock-read /usr -- sh
//	kiste privilege show 1
//
// Pure functions are safe for concurrent use. Apply needs a locked thread.
// Without root a seccomp filter or a Landlock ruleset needs no_new_privs.
package privilege
