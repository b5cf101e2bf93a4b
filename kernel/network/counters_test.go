package network

import (
	"errors"
	"os"
	"reflect"
	"testing"

	"kiste/fault"
)

func TestParseCounters(t *testing.T) {
	const text = `Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       2    0    0    0     0          0         0      100       2    0    0    0     0       0          0
eth0.5:18446744073709551615 5    1    2    0     0          0         0      300       6    3    4    0     0       0          0
broken: 1 2
`
	want := []Counters{{"lo", 100, 2, 0, 0, 100, 2, 0, 0}, {"eth0.5", 18446744073709551615, 5, 1, 2, 300, 6, 3, 4}}
	if got := parseCounters(text); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestCountersOfThisProcess(t *testing.T) {
	got, err := CountersOf(os.Getpid())
	if err != nil || len(got) == 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := CountersOf(1 << 30); !errors.Is(err, fault.NotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func FuzzParseCounters(f *testing.F) {
	f.Add("lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16")
	f.Fuzz(func(t *testing.T, text string) { parseCounters(text) })
}
