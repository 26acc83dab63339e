// Command banger turns OCI and Docker images into bootable ext4 root disks.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/banger-vm/banger/internal/cli"
)

// version is set by the Makefile.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := cli.Main(ctx, version, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
