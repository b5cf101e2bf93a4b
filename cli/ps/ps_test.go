package ps

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"kiste/fault"
)

func TestOnly(t *testing.T) {
	const text = "UID  PID CMD\nroot   1 init\nann   22 sh -c 33\nann   33 ls\n"
	got, err := Only(text, []int{22, 33, 44})
	if want := "UID  PID CMD\nann   22 sh -c 33\nann   33 ls\n"; err != nil || got != want {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
	got, err = Only("PID LWP\n1 -\n- 1\n2 -\n- 2\n- 3\n", []int{2})
	if want := "PID LWP\n2 -\n- 2\n- 3\n"; err != nil || got != want {
		t.Errorf("threads: got %q, %v; want %q", got, err, want)
	}
	for _, bad := range []string{"", "UID CMD\nroot init\n", "PID\nx\n"} {
		if _, err := Only(bad, []int{1}); !errors.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestRows(t *testing.T) {
	got := Rows("UID PID CMD\nann  22  sh -c  33\nann 4\n")
	want := [][]string{{"UID", "PID", "CMD"}, {"ann", "22", "sh -c 33"}, {"ann", "4"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

func FuzzOnly(f *testing.F) {
	f.Add("UID PID CMD\nann 22 ls\n- - -\n")
	f.Fuzz(func(t *testing.T, text string) {
		kept, err := Only(text, []int{22})
		if err == nil && strings.Count(kept, "\n") > strings.Count(text, "\n")+1 {
			t.Errorf("%q of %q", kept, text)
		}
		Rows(text)
	})
}
