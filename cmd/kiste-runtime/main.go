// The Go runtime need not ask cgroups how many CPUs this process may use: it
// uses hardly one, and asking costs 20 system calls.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0

// Command kiste-runtime is an OCI runtime with runc's command line.
package main

import (
	"os"

	"kiste/cli/oci"
	"kiste/internal/stack"
	"kiste/internal/sys"
)

func main() {
	sys.Begin()
	_ = stack.Grown
	os.Exit(oci.Main(&oci.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:]))
}
