package option

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Moment takes a point in time, as ParseMoment reads it.
func Moment(p *time.Time) Var {
	return func(s string) error {
		t, err := ParseMoment(s, time.Now())
		if err != nil {
			return err
		}
		*p = t
		return nil
	}
}

// ParseMoment reads a point in time as Docker's --since and --until have it:
// how long before now ("1h30m"), seconds since 1970 ("1700000000.5"), or a date
// with as much of a time as there is ("2026-01-02T15:04"), of this host's zone
// where it names none.
func ParseMoment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && s != "0" {
		return now.Add(-d), nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
		if t, err := time.Parse(layout+"Z07:00", s); err == nil {
			return t, nil
		}
	}
	whole, part, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	nanoseconds, bad := strconv.ParseUint((part + "000000000")[:9], 10, 32)
	if err != nil || bad != nil || len(part) > 9 {
		return time.Time{}, errors.New("want a time such as 10m, 2026-01-02T15:04:05 or 1700000000")
	}
	return time.Unix(seconds, int64(nanoseconds)), nil
}
