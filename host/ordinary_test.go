package host

import "testing"

// An ordinary user may not mount, but knows that the kernel can.
func TestKernelsCallsAreFoundByEverybody(t *testing.T) {
	if !Kernel(5, 14) {
		t.Skip("NEEDS Linux 5.14")
	}
	for _, p := range []Power{Openat2, MountSetattr, Pidfd, Clone3} {
		if !p.Have() {
			t.Errorf("no %s: %s", p.Name, p.Remedy)
		}
	}
}
