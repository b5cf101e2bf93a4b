// Package stack gives the goroutine of main its stack at once.
//
//	takes    nothing
//	gives    a stack of 32 kilobytes, before main and nearly all that begins before it
//	touches  nothing
//	state    none
//
// Go doubles a stack of 2 kilobytes whenever it is too small: it copies what is
// there, reads the tables of all functions that are on it, and fills a pool of
// stacks of each size on the way, every one of which becomes a page: a tenth of
// what Go's runtime needs to start.
//
// Packages without imports begin before those with, in the order of their names
// (language specification, program initialization): this one before package
// sync, and so before all that needs it and whose beginning takes more stack.
// Only programs that start for every container import it.
package stack

// Grown is set when the stack is there. Main says it, so that it is linked.
var Grown = grow()

// grow needs a large frame, and does nothing with it.
func grow() bool
