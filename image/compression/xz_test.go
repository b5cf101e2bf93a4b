package compression_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"kiste/fault"
	"kiste/image/compression"
	"kiste/internal/need"
)

// text is some that compresses, with a part that does not.
func text(n int) []byte {
	b := []byte(strings.Repeat("some text of a file, and more of it; ", n/37+1))[:n]
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b[n/3 : n/2]) //nolint:errcheck // never fails
	return b
}

func pack(t testing.TB, b []byte, args ...string) []byte {
	t.Helper()
	need.Program(t, "xz")
	cmd := exec.Command("xz", append([]string{"--stdout"}, args...)...)
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(b []byte) ([]byte, error) {
	r, err := compression.Decompress(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestXZ(t *testing.T) {
	plain := text(3 << 20)
	for _, args := range []string{"-0", "-6", "-9", "-0 --check=none", "-0 --check=crc32", "-0 --check=sha256", "-0 --block-size=100000", "-0 -T2 --block-size=300000", "--lzma2=dict=4KiB", "--lzma2=dict=64MiB"} {
		t.Run(args, func(t *testing.T) {
			b := pack(t, plain, strings.Fields(args)...)
			if got, err := unpack(b); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			for _, n := range []int{7, 20, 40, len(b) / 2, len(b) - 30, len(b) - 5} {
				if _, err := unpack(b[:n]); err == nil {
					t.Errorf("cut off after %d of %d bytes: no error", n, len(b))
				}
			}
			bad := bytes.Clone(b)
			bad[len(bad)/2] ^= 1
			if got, err := unpack(bad); err == nil && (!strings.Contains(args, "none") || bytes.Equal(got, plain)) {
				t.Error("a flipped bit: no error")
			}
		})
	}
	a, b := pack(t, plain, "-0"), pack(t, nil)
	several := bytes.Join([][]byte{a, make([]byte, 8), b, a}, nil)
	if got, err := unpack(several); err != nil || !bytes.Equal(got, append(bytes.Clone(plain), plain...)) {
		t.Errorf("several streams with padding: %d bytes, %v", len(got), err)
	}
}

// What a header asks for is bounded, in whichever block it stands.
func TestXZThatIsNotRead(t *testing.T) {
	plain := text(1 << 20)
	large := bytes.Join([][]byte{pack(t, plain, "-0", "--block-size=100000"), pack(t, plain, "--lzma2=dict=128MiB")}, nil)
	many := bytes.Repeat(pack(t, []byte("x"), "--lzma2=dict=64MiB"), 100)
	for _, tt := range []struct {
		name string
		b    []byte
		want string
	}{
		{"a dictionary for every byte", many, "too small for their dictionaries"},
		{"a large dictionary", pack(t, plain, "--lzma2=dict=65MiB"), "dictionary of"},
		{"a large dictionary in a later block", large, "dictionary of"},
		{"a filter for programs", pack(t, plain, "--x86", "--lzma2"), "filter 0x4"},
		{"a filter of differences", pack(t, plain, "--delta", "--lzma2"), "filter 0x3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := unpack(tt.b)
			if !errors.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(fault.HintOf(err), "xz -dc") {
				t.Errorf("got %v (hint %q)", err, fault.HintOf(err))
			}
		})
	}
}

// Whatever comes, nothing panics or hangs, and memory is bounded.
func FuzzDecompress(f *testing.F) {
	plain := text(5000)
	if _, err := exec.LookPath("xz"); err == nil {
		f.Add(pack(f, plain, "-0", "--block-size=1000"))
		f.Add(append(pack(f, nil), pack(f, plain, "--check=sha256")...))
	}
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x28"))
	f.Add([]byte("BZh9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := compression.Decompress(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer r.Close()
		io.Copy(io.Discard, io.LimitReader(r, 1<<20)) //nolint:errcheck // most is damaged
	})
}
