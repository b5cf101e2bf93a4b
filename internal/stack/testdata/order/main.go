// Command order begins as any program does, for a test.
package main

import (
	"fmt"

	"kiste/internal/stack"
)

func main() { fmt.Println(stack.Grown) }
