package sys_test

import (
	"bytes"
	"testing"

	"kiste/internal/sys"
)

func TestRandomFillsAll(t *testing.T) {
	b, again := make([]byte, 1024), make([]byte, 1024)
	for _, p := range [][]byte{b, again} {
		if err := sys.Random(p); err != nil {
			t.Fatal(err)
		}
	}
	if bytes.Equal(b, again) || bytes.HasSuffix(b, make([]byte, 64)) {
		t.Errorf("not random: % x", b[:16])
	}
}
