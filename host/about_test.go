package host

import "testing"

func TestOSRelease(t *testing.T) {
	for _, tt := range []struct{ text, name, version string }{
		{"PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n", "Debian GNU/Linux 12 (bookworm)", "12"},
		{"VERSION_ID=1\nPRETTY_NAME='a b'", "a b", "1"},
		{"", "", ""},
	} {
		if name, version := parseOSRelease(tt.text); name != tt.name || version != tt.version {
			t.Errorf("%q: %q, %q", tt.text, name, version)
		}
	}
}

func TestCountList(t *testing.T) {
	for list, want := range map[string]int{"0": 1, "0-3": 4, "0-3,8": 5, "0,2-3": 3, "": 0, "x": 0, "3-1": 0} {
		if got := countList(list); got != want {
			t.Errorf("%q: %d, want %d", list, got, want)
		}
	}
}

func TestThisHost(t *testing.T) {
	if Memory() < 1<<20 || CPUs() < 1 || Machine() == "" || FileSystem("/") == "" {
		t.Errorf("%d bytes, %d processors, %q, %q", Memory(), CPUs(), Machine(), FileSystem("/"))
	}
}
