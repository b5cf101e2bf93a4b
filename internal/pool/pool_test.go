package pool_test

import (
	"slices"
	"testing"

	"kiste/internal/pool"
)

// Whatever is appended to one list, the others stay.
func TestListsAreApart(t *testing.T) {
	var p pool.Of[int]
	source := []int{1, 2}
	a, b := p.Keep(source, 4), p.Keep([]int{3}, 4)
	source[0] = 9
	_ = append(a, 7)
	b = append(b, 8)
	large := p.Keep([]int{4, 5, 6, 7, 8}, 4)
	for _, same := range [][2][]int{{a, {1, 2}}, {b, {3, 8}}, {large, {4, 5, 6, 7, 8}}, {p.Keep(nil, 4), nil}} {
		if !slices.Equal(same[0], same[1]) {
			t.Errorf("%v, not %v", same[0], same[1])
		}
	}
}
