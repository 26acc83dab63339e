package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/guest"
)

// The port is looked for after these times, the later one at the end: its
// driver may be loaded after the agent has started.
const (
	firstLook = time.Millisecond
	lastLook  = 50 * time.Millisecond
)

// openPort waits for the virtio-serial port with the agent's name and opens
// it. It is opened once: a port that is closed forgets what is queued.
func openPort(ctx context.Context, ports, devices string) (*port, error) {
	var f *os.File
	err := poll.Backoff(ctx, firstLook, lastLook, func() (bool, error) {
		name, err := findPort(ports)
		if err == nil {
			f, err = os.OpenFile(filepath.Join(devices, name), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		}
		// A device's name may come after its entry in sysfs.
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return true, err
	})
	if err != nil {
		return nil, fmt.Errorf("open agent's port: %w", err)
	}
	return newPort(f)
}

// findPort returns the device name of the agent's port. The error is
// fs.ErrNotExist as long as there is none.
func findPort(ports string) (string, error) {
	entries, err := os.ReadDir(ports)
	if err != nil {
		return "", err
	}
	for _, e := range entries {
		name, err := os.ReadFile(filepath.Join(ports, e.Name(), "name"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
			return "", err
		}
		if strings.TrimSuffix(string(name), "\n") == guest.AgentPort {
			return e.Name(), nil
		}
	}
	return "", fmt.Errorf("port %s: %w", guest.AgentPort, fs.ErrNotExist)
}

// A port is a virtio-serial port. While the host is away, the driver answers
// reads with 0 bytes and poll(2) with POLLHUP, at once and again and again.
// But it wakes those who wait for an edge whenever that changes, and the
// runtime's poller waits for edges: so Read waits there, without a timer.
type port struct {
	*os.File
	raw syscall.RawConn
}

func newPort(f *os.File) (*port, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open agent's port: %w", err), f.Close())
	}
	return &port{f, raw}, nil
}

// Read waits for bytes, also while the host is away.
func (p *port) Read(b []byte) (int, error) {
	var n int
	var failed error
	err := p.raw.Read(func(fd uintptr) bool {
		for {
			n, failed = unix.Read(int(fd), b)
			switch {
			case errors.Is(failed, unix.EINTR):
				continue
			case errors.Is(failed, unix.EAGAIN), failed == nil && n == 0 && len(b) > 0:
				return false
			}
			return true
		}
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, fmt.Errorf("read agent's port: %w", err)
	}
	return n, nil
}
