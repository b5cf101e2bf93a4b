// Command kiste builds, ships, runs and explains containers.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"kiste/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Stdout: os.Stdout, Stderr: os.Stderr}, os.Args[1:])
	stop()
	os.Exit(code)
}
