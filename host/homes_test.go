package host

import (
	"slices"
	"testing"
)

func TestHomes(t *testing.T) {
	got := homesIn("root:x:0:0:root:/root:/bin/bash\nmysql:x:105:110::/var/lib/mysql:/bin/false\nann:x:1000:1000::/home/ann:/bin/sh\nnobody:x:65534:65534::/nonexistent:/bin/false\nbroken:x:1001\n")
	if !slices.Equal(got, []string{"/root", "/home/ann"}) {
		t.Errorf("got %q", got)
	}
}
