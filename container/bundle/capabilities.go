package bundle

import (
	"fmt"
	"slices"
	"strings"

	"kiste/fault"
)

// defaultCapabilities are Docker's 14.
func defaultCapabilities() []string {
	return []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
		"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}
}

// allCapabilities are capabilities(7), by number.
func allCapabilities() []string {
	names := strings.Split("CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "+
		"NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE "+
		"SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL "+
		"SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE", " ")
	for i := range names {
		names[i] = "CAP_" + names[i]
	}
	return names
}

// tweakCapabilities applies --cap-add and --cap-drop to the default set.
func tweakCapabilities(add, drop []string, privileged bool) ([]string, error) {
	if privileged {
		return allCapabilities(), nil
	}
	add, err := capabilityNames("--cap-add", add)
	if err != nil {
		return nil, err
	}
	drop, err = capabilityNames("--cap-drop", drop)
	if err != nil {
		return nil, err
	}
	base := defaultCapabilities()
	switch {
	case slices.Contains(add, "ALL"):
		base, add = allCapabilities(), nil
	case slices.Contains(drop, "ALL"):
		base = nil
	}
	base = slices.DeleteFunc(base, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if !slices.Contains(base, c) {
			base = append(base, c)
		}
	}
	return base, nil
}

// capabilityNames gives names their form: "net_admin" is "CAP_NET_ADMIN".
func capabilityNames(option string, names []string) ([]string, error) {
	var out []string
	for _, n := range names {
		c := strings.ToUpper(n)
		if c != "ALL" && !strings.HasPrefix(c, "CAP_") {
			c = "CAP_" + c
		}
		if c == "CAP_ALL" {
			c = "ALL"
		}
		if c != "ALL" && !slices.Contains(allCapabilities(), c) {
			return nil, badOption(option, fault.Invalid, fmt.Errorf("unknown capability: %q", c))
		}
		out = append(out, c)
	}
	return out, nil
}
