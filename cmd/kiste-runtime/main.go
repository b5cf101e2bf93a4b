// Command kiste-runtime is an OCI runtime with runc's command line.
package main

import (
	"os"

	"kiste/cli/oci"
)

func main() {
	os.Exit(oci.Main(&oci.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Args[1:]))
}
