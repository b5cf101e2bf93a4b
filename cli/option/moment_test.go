package option

import (
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	zone := time.FixedZone("CET", 3600)
	now := time.Date(2026, 1, 2, 15, 4, 5, 0, zone)
	for text, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "1h30m": now.Add(-90 * time.Minute), "-1m": now.Add(time.Minute),
		"2026-01-02": time.Date(2026, 1, 2, 0, 0, 0, 0, zone), "2026-01-02T15:04": time.Date(2026, 1, 2, 15, 4, 0, 0, zone),
		"2026-01-02T15":          time.Date(2026, 1, 2, 15, 0, 0, 0, zone),
		"2026-01-02T15:04:05.25": time.Date(2026, 1, 2, 15, 4, 5, 25e7, zone), "2026-01-02T15:04:05Z": time.Date(2026, 1, 2, 15, 4, 5, 0, time.UTC),
		"2026-01-02T15:04:05.5+02:00": time.Date(2026, 1, 2, 13, 4, 5, 5e8, time.UTC), "2026-01-02Z": time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC),
		"1700000000": time.Unix(1700000000, 0), "1700000000.5": time.Unix(1700000000, 5e8), "0": time.Unix(0, 0),
	} {
		got, err := ParseMoment(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "x", "2026-13-01", "1.1234567890", "1.x", "yesterday"} {
		if got, err := ParseMoment(bad, now); err == nil {
			t.Errorf("%s is %v", bad, got)
		}
	}
}

func FuzzParseMoment(f *testing.F) {
	f.Add("10m")
	f.Fuzz(func(t *testing.T, s string) { _, _ = ParseMoment(s, time.Unix(0, 0)) })
}
