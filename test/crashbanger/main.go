// Command crashbanger is banger for the tests that kill it. Each of its machines has a tap and a loop device, which it
// does not use, so there are resources to leak.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/base/xdg"
	"github.com/banger-vm/banger/internal/cli"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/supervisor"
	"golang.org/x/sys/unix"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	at := slices.Index(args, "supervise")
	if at < 0 || at == len(args)-1 {
		return cli.Main(ctx, "crash", args, os.Stdin, os.Stdout, os.Stderr)
	}
	if err := supervise(ctx, args[:at], args[len(args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, "banger:", err)
		return 1
	}
	return 0
}

// supervise is the command of the same name, with additional devices.
func supervise(ctx context.Context, flags []string, id string) error {
	where, err := xdg.Default()
	if err != nil {
		return err
	}
	for i, flag := range flags {
		if root, ok := strings.CutPrefix(flag, "--data-root="); ok {
			where.Data = root
		} else if flag == "--data-root" && i+1 < len(flags) {
			where.Data = flags[i+1]
		}
	}
	root, err := record.OpenRoot(where.Data, where.Runtime)
	if err != nil {
		return err
	}
	kernels, err := kernel.Open(where.Data)
	if err != nil {
		return err
	}
	if err := addDevices(ctx, root, id); err != nil {
		return err
	}
	return supervisor.Run(ctx, id, supervisor.Config{
		Root: root, Kernels: kernels, Cache: where.Cache, Unconfined: true, // the stub in the place of QEMU is set-user-ID
	})
}

// addDevices makes the devices and enters them in the machine's ledger, before the supervisor opens it.
func addDevices(ctx context.Context, root *record.Root, id string) error {
	// The process that started this one writes the ledger until it sends the launch.
	started := []unix.PollFd{{Fd: control.StartFD, Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(started, -1); err == nil {
			break
		} else if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	if started[0].Revents&unix.POLLIN == 0 {
		return nil // it was killed
	}
	fd, err := unix.FcntlInt(control.LockFD, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir, err := root.Inherit(id, os.NewFile(uintptr(fd), "lock"))
	if err != nil {
		return err
	}
	j, err := record.OpenJournal(ctx, dir)
	if err != nil {
		return err
	}
	if err := makeDevices(ctx, j.Maker, filepath.Join(dir.Data, "device.raw")); err != nil {
		return errors.Join(err, reportError(err), j.Abandon(ctx, false))
	}
	return dir.Close()
}

// reportError sends an error to the process that started this one.
func reportError(err error) error {
	start, fileErr := net.FileConn(os.NewFile(control.StartFD, "start"))
	if fileErr != nil {
		return fileErr
	}
	return frames.New(start).SendJSON(frames.Error, control.WireError(err))
}

// makeDevices makes a tap that persists, and a loop device over file, which stays until the machine is removed.
func makeDevices(ctx context.Context, mk resource.Maker, file string) error {
	tap, _, err := mk.Tap(ctx, resource.TapOptions{Persist: true})
	if err != nil {
		return err
	}
	if err := tap.Close(); err != nil {
		return err
	}
	if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) {
		const size = 1 << 20
		err := mk.Files(ctx, ledger.Disk, []string{file}, func() error { return os.WriteFile(file, make([]byte, size), 0o600) })
		if err != nil {
			return err
		}
	}
	device, err := mk.Loop(ctx, "device", file, resource.LoopOptions{})
	if err != nil {
		return err
	}
	return device.Close()
}
