package script

import (
	"os"
	"path/filepath"
	"testing"
)

// A runtime is started several times for each container.
func TestRuntimeIsSmall(t *testing.T) {
	const most = 6 << 20
	info, err := os.Stat(filepath.Join(bin, "kiste-runtime"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > most {
		t.Errorf("kiste-runtime has %d bytes; want at most %d", info.Size(), most)
	}
	t.Logf("%d bytes", info.Size())
}
