package sys

import "golang.org/x/sys/unix"

// Random fills b from getrandom(2). Package crypto/rand does the same and links
// a hundred kilobytes that every start would pay for.
func Random(b []byte) error {
	for len(b) > 0 {
		n, err := retryFD(func() (int, error) { return unix.Getrandom(b, 0) })
		if err != nil {
			return named("getrandom", err)
		}
		b = b[n:]
	}
	return nil
}
