// Command early tells that it has come to main, for a test.
package main

import (
	"fmt"

	"kiste/internal/sys"
)

func main() {
	sys.Begin()
	fmt.Println("main", int(sys.EarlyErrno()))
}
