package sys_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"kiste/internal/sys"
)

func TestReadFileOfEverySize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	text := make([]byte, 40000)
	for i := range text {
		text[i] = byte(i * 7)
	}
	for _, size := range []int{0, 1, 4095, 4096, 4097, 8192, 16383, 16384, 16385, 20480, 40000} {
		if err := os.WriteFile(path, text[:size], 0o600); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int{1, 4096, 4097, 16384, 20000, 1 << 20} {
			b, err := sys.ReadFile(path, limit)
			if want := text[:min(size, limit)]; err != nil || !bytes.Equal(b, want) {
				t.Errorf("of %d bytes, at most %d: %d, %v", size, limit, len(b), err)
			}
		}
	}
}
