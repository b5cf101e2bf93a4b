// Command kisted does what needs the heavy libraries: kiste becomes it where a
// command wants them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"kiste/cli"
	"kiste/cli/heavy"
)

func main() {
	env := &cli.Env{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Stdout: os.Stdout, Stderr: os.Stderr, Heavy: heavy.Commands(),
		Format: heavy.Listing, Template: heavy.Template, Match: heavy.Match}
	if err := heavy.Settle(); err != nil {
		os.Exit(cli.Exit(env, err))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Main(ctx, env, os.Args[1:])
	stop()
	os.Exit(code)
}
