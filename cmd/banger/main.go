// Command banger builds ext4 root disks from OCI and Docker images and runs them as
// virtual machines.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/banger-vm/banger/internal/cli"
)

// version is the version of the program. The Makefile sets it.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := cli.Main(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
