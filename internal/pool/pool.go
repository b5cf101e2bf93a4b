// Package pool keeps short lists that live as long as each other in few pieces of
// memory.
//
//	takes    lists
//	gives    copies of them, one behind the other
//	touches  nothing
//	state    none
//
// Each size of objects costs a start pages of its own, and each object some time
// (docs/design/0004-what-a-start-costs.md). As long as one of the lists is used all of
// its piece is in memory.
package pool

import "slices"

// Of is a pool of lists of T; its zero value is an empty one. It is for one
// goroutine at a time.
type Of[T any] struct{ room []T }

// Keep gives a copy of list, which nobody else has; to append to it copies it
// again. A new piece of memory has room for so many elements, or for the list.
func (p *Of[T]) Keep(list []T, piece int) []T {
	if len(list) > cap(p.room)-len(p.room) {
		p.room = make([]T, 0, max(piece, len(list)))
	}
	from := len(p.room)
	p.room = append(p.room, list...)
	return slices.Clip(p.room[from:])
}
