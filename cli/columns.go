package cli

import (
	"fmt"
	"strings"
	"time"
)

// age says how long ago t was, as Docker does.
func age(t, now time.Time) string {
	if t.Year() < 1971 {
		return "N/A"
	}
	return span(now.Sub(t)) + " ago"
}

// shortID is the first twelve digits of an ID.
func shortID(id string) string {
	id = id[strings.IndexByte(id, ':')+1:]
	return id[:min(12, len(id))]
}

// span says how long d is, as Docker does.
func span(d time.Duration) string {
	days := int(d.Hours() / 24)
	switch {
	case d < time.Second:
		return "Less than a second"
	case d < time.Minute:
		return some(int(d.Seconds()), "second")
	case d < 2*time.Minute:
		return "About a minute"
	case d < time.Hour:
		return some(int(d.Minutes()), "minute")
	case d < 90*time.Minute:
		return "About an hour"
	case d < 48*time.Hour:
		return some(int(d.Hours()+0.5), "hour")
	case days < 14:
		return some(days, "day")
	case days < 60:
		return some(days/7, "week")
	case days < 730:
		return some(days/30, "month")
	}
	return some(days/365, "year")
}

func some(n int, unit string) string {
	if n != 1 {
		unit += "s"
	}
	return fmt.Sprintf("%d %s", n, unit)
}
