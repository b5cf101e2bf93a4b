package source

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	"kiste/fault"
)

// Digest is the sha256 digest of b, as "sha256:…".
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// NewHash gives the hash that a digest, which has been checked, is made with.
func NewHash(digest string) hash.Hash {
	if strings.HasPrefix(digest, "sha512:") {
		return sha512.New()
	}
	return sha256.New()
}

// Open opens what d describes and verifies it while it is read: what is
// damaged, too long or too short makes the last Read fail with fault.Invalid
// instead of io.EOF, so it has to be read to its end. Have, if not nil, is the beginning of it that is already
// here: it is read and counted in, and the result starts behind it.
func Open(ctx context.Context, s Source, d Descriptor, have io.Reader) (io.ReadCloser, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	v := &verifier{d: d, hash: NewHash(d.Digest)}
	if have != nil {
		n, err := io.Copy(v.hash, io.LimitReader(have, d.Size+1))
		if err != nil {
			return nil, err
		}
		if n > d.Size {
			return nil, v.fail(fmt.Errorf("what is here of it has more than its %d bytes", d.Size))
		}
		v.n = n
	}
	rc, err := s.Blob(ctx, d, v.n)
	if err != nil {
		return nil, err
	}
	v.r = rc
	return v, nil
}

// A verifier passes on what it reads and counts and hashes it.
type verifier struct {
	d    Descriptor
	r    io.ReadCloser
	hash hash.Hash
	n    int64
	err  error
}

func (v *verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	if v.n += int64(n); v.n > v.d.Size {
		v.err = v.fail(fmt.Errorf("it has more than its %d bytes", v.d.Size))
		return 0, v.err
	}
	v.hash.Write(p[:n])
	if err == io.EOF {
		err = v.end()
	}
	v.err = err
	return n, err
}

// end judges at the end of the stream.
func (v *verifier) end() error {
	if v.n < v.d.Size {
		return v.fail(fmt.Errorf("it ends after %d of %d bytes", v.n, v.d.Size))
	}
	_, want, _ := strings.Cut(v.d.Digest, ":")
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != want {
		return v.fail(fmt.Errorf("its content has the digest %s", got))
	}
	return io.EOF
}

func (v *verifier) fail(err error) error {
	return &fault.Error{Op: "verify", On: v.d.Digest, Kind: fault.Invalid, Err: err,
		Hint: "the image is damaged where it comes from, or on the way"}
}

func (v *verifier) Close() error { return v.r.Close() }

// check verifies a whole document.
func check(d Descriptor, b []byte) error {
	v := &verifier{d: d, hash: NewHash(d.Digest), n: int64(len(b))}
	if err := d.check(); err != nil {
		return err
	}
	if v.n > d.Size {
		return v.fail(fmt.Errorf("it has %d bytes instead of %d", len(b), d.Size))
	}
	v.hash.Write(b)
	if err := v.end(); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
