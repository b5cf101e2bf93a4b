package validation

import (
	"fmt"
	"strings"

	"kiste/test/peer"
)

// An exception is a program that does not pass, and why.
type exception struct {
	why string

	// host says that the reason lies in a host, or in time: it may pass.
	host bool
}

// The reasons that several programs share.
const (
	pointers  = "compares two pointers, not the numbers they point at: it fails whatever the limit is"
	removed   = "the kernel no longer has blkio.leaf_weight, or no disk 8:0 is here"
	kmem      = "asks for a limit of kernel memory, which kernels since 5.16 do not keep; runc leaves out that of TCP buffers as well, crun and kiste-runtime set it"
	noHugetlb = "hugetlb is no controller of version 1 here, or has no pages of 64 KB"
	noNet     = "net_cls and net_prio are mounted nowhere here"
)

// known are the programs that do not pass with kiste-runtime.
var known = map[string]exception{
	"delete": {why: "wants a container that was created but not started to refuse delete; runc and crun delete it, and engines count on that"},
	"hooks": {why: "expects the output of other hooks than it asks for (\"post-start1\" for \"post-start1 called\"), " +
		"in a directory that it has removed before"},
	"poststart_fail": {why: "wants a warning when a poststart hook fails; runtime-spec 1.3 forbids that (runtime.md, lifecycle, step 9: it MUST generate an error and stop the container), and runc does as it says"},
	"prestart":       {why: "wants prestart hooks when the container starts; runtime-spec 1.3 wants them when it is created"},
	"start":          {why: "its last check wants start to succeed without a process, and says that it must be an error"},
	"mounts": {why: "wants /proc/self/mountinfo to list mounts in the order of config.json; before Linux 6.8 it lists them as they were attached, and kiste-runtime " +
		"attaches procfs last, so that no link of the image leads into it", host: true},
	"misc_props": {why: "starts a program that it did not put into the bundle"},
	"process_rlimits": {why: "runtimetest is a Go program, and Go raises its own soft limit of open files before main: " +
		"it sees another limit than the one it was started with"},
	"process_capabilities_fail":      {why: "wants an error for an unknown capability; runtime-spec 1.3 wants a warning"},
	"process_capabilities":           {why: "asks for every capability, and this host's root lacks some", host: true},
	"pidfile":                        {why: "kills a container that runs true, which has ended by then or not", host: true},
	"delete_resources":               {why: pointers},
	"linux_cgroups_pids":             {why: pointers},
	"linux_cgroups_relative_pids":    {why: pointers},
	"linux_cgroups_blkio":            {why: removed, host: true},
	"linux_cgroups_relative_blkio":   {why: removed, host: true},
	"linux_cgroups_memory":           {why: kmem, host: true},
	"linux_cgroups_relative_memory":  {why: kmem, host: true},
	"linux_cgroups_hugetlb":          {why: noHugetlb, host: true},
	"linux_cgroups_relative_hugetlb": {why: noHugetlb, host: true},
	"linux_cgroups_network":          {why: noNet, host: true},
	"linux_cgroups_relative_network": {why: noNet, host: true},
	"linux_process_apparmor_profile": {why: "asks for an AppArmor profile, on a kernel without AppArmor", host: true},
	"linux_mount_label":              {why: "asks for an SELinux label on a kernel without SELinux; runtime-spec 1.3 forbids to go on (runtime.md, create: what cannot apply a property MUST generate an error); crun leaves the label out without a word", host: true},
}

// races are the programs that compare the order of what two processes do at the
// same time, each of which began when it should: they must pass once in so many
// times.
var races = map[string]int{
	"poststart": 20, // the container's program and the hook, which is called after its execve(2): see container/lifecycle, TestPoststartSeesTheProgram
}

// table is the page docs/conformance.md.
func table(programs []string, results map[string]map[string]verdict) string {
	var b strings.Builder
	b.WriteString(head)
	fmt.Fprintf(&b, "| program | %s | why not |\n|---|%s---|\n", strings.Join(peer.Names, " | "), strings.Repeat("---|", len(peer.Names)))
	passed := map[string]int{}
	for _, p := range programs {
		var cells []string
		for _, name := range peer.Names {
			word := "passes"
			if results[name][p].why != "" {
				word = "fails"
			} else {
				passed[name]++
			}
			cells = append(cells, word)
		}
		why := ""
		if results[ours][p].why != "" {
			why = known[p].why
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p, strings.Join(cells, " | "), why)
	}
	var cells []string
	for _, name := range peer.Names {
		cells = append(cells, fmt.Sprintf("%d of %d", passed[name], len(programs)))
	}
	fmt.Fprintf(&b, "| passed | %s | |\n", strings.Join(cells, " | "))
	return b.String()
}

const head = `# Conformance

The validation programs of OCI's runtime-tools, run on kiste-runtime and on Debian 12's runc 1.1 and crun 1.8: kernel 6.18,
cgroups version 1 and 2 mixed, hugetlb among those of version 1, no AppArmor, no SELinux, a root without CAP_SYS_RESOURCE.
` + "`go test ./test/conformance/validation -peers -update`" + ` measures and writes this page; each run of the tests
fails where a program fails with kiste-runtime that is not explained here.

`
