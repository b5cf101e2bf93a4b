package host

import "testing"

func TestPastaDay(t *testing.T) {
	for version, want := range map[string]int{
		"pasta 2024_07_26.57a21d2": 20240726, "pasta 0.0~git20240726.57a21d2-1": 20240726, "pasta 20250503": 20250503,
		"pasta unknown version": 0, "": 0, "pasta 1.2.3": 0,
	} {
		if got := pastaDay(version); got != want {
			t.Errorf("%q is of %d, want %d", version, got, want)
		}
	}
}

func TestDefaultRouteOfIPv6(t *testing.T) {
	const eth0 = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000001 00000000 00000003     eth0\n"
	const lo = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n"
	const own = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
	for table, want := range map[string]bool{lo + own + eth0: true, lo + own: false, "": false, "nonsense\n": false} {
		if got := hasDefault6(table); got != want {
			t.Errorf("%q: %v, want %v", table, got, want)
		}
	}
	if FirstUserPort() < 0 {
		t.Error(FirstUserPort())
	}
}
