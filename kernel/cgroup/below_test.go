package cgroup

import (
	"os/exec"
	"slices"
	"testing"
	"time"
)

func TestBelowNamesWhatIsEmptyAndOld(t *testing.T) {
	l, group := ground(t)
	for _, name := range []string{"empty", "busy", "above"} {
		if _, err := Create(l, group+"/"+name, Limits{}, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Create(l, group+"/above/busy", Limits{}, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"busy", "above/busy"} {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		g, err := Open(l, group+"/"+name)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Attach(cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Below(l, group, 0)
	if err != nil || !slices.Equal(got, []string{"empty"}) {
		t.Errorf("Below: %v, %v; want the empty one", got, err)
	}
	if got, err := Below(l, group, time.Hour); err != nil || len(got) != 0 {
		t.Errorf("Below of an hour's age: %v, %v", got, err)
	}
	if got, err := Below(l, group+"/not-there", 0); err != nil || len(got) != 0 {
		t.Errorf("Below nothing: %v, %v", got, err)
	}
}
