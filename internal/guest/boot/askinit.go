package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// systemdPowerOff is SIGRTMIN+4 of systemd(1), as C libraries count: they
// reserve the kernel's first two real-time signals, 32 and 33.
const systemdPowerOff = unix.Signal(34 + 4)

// AskInit asks the image's init, which is process 1, to power off, in the way
// that this init supports. If the machine still runs after grace, AskInit
// flushes the disks and ends the machine without the init. It returns an error
// if that fails or ctx ends; otherwise the machine has ended. The agent calls
// it inside the image's root.
func AskInit(ctx context.Context, grace time.Duration) error {
	err := askInit(ctx)
	if err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(grace):
		}
	}
	return errors.Join(err, forcePowerOff())
}

func askInit(ctx context.Context) error {
	exe, err := os.Readlink("/proc/1/exe")
	if err != nil {
		return fmt.Errorf("ask init to power off: %w", err)
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil { // sd_booted(3)
		return signalInit(systemdPowerOff)
	}
	switch filepath.Base(exe) {
	case "busybox":
		return signalInit(unix.SIGUSR2)
	case "openrc-init":
		return runFirst(ctx, [][]string{{"/sbin/openrc-shutdown", "-p", "now"}, {"/usr/sbin/openrc-shutdown", "-p", "now"}})
	}
	err = runFirst(ctx, [][]string{{"/sbin/poweroff"}, {"/usr/sbin/poweroff"}, {"/bin/poweroff"}, {"/usr/bin/poweroff"}})
	if errors.Is(err, fs.ErrNotExist) {
		return signalInit(unix.SIGTERM) // docker's default for the first process of a container
	}
	return err
}

func signalInit(s unix.Signal) error {
	if err := unix.Kill(1, s); err != nil {
		return fmt.Errorf("ask init to power off: %w", err)
	}
	return nil
}

// runFirst runs the first of the programs that exists.
func runFirst(ctx context.Context, programs [][]string) error {
	for _, argv := range programs {
		p, err := os.StartProcess(argv[0], argv, &os.ProcAttr{Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}})
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("ask init to power off: %w", err)
		}
		// Kill fails only if the program has ended.
		stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
		state, err := p.Wait()
		stop()
		if err != nil {
			return fmt.Errorf("ask init to power off: %w", err)
		}
		if !state.Success() {
			return fmt.Errorf("ask init to power off: %s: %v", argv[0], state)
		}
		return nil
	}
	return fmt.Errorf("ask init to power off: %w", fs.ErrNotExist)
}

// forcePowerOff ends the machine without its init.
func forcePowerOff() error {
	if err := detachDisks(); err != nil {
		return errors.Join(err, powerOff(int(os.Stderr.Fd())))
	}
	return powerOff(int(os.Stderr.Fd()))
}
