// Command kiste builds, ships, runs and explains containers.
package main

import (
	"context"
	"os"

	"kiste/cli"
	"kiste/internal/stack"
	"kiste/internal/sys"
)

// An interrupt ends kiste as it ends any program: state is safe at any moment.
// Catching signals costs every start a quarter of a millisecond, so only a
// command that has something to do with them does it.
func main() {
	sys.Begin()
	_ = stack.Grown
	env := &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Stdout: os.Stdout, Stderr: os.Stderr}
	os.Exit(cli.Main(context.Background(), env, os.Args[1:]))
}
