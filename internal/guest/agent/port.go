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

// The interval at which openPort looks for the port grows from minPoll to
// maxPoll. The port's driver may be loaded after the agent has started.
const (
	minPoll = time.Millisecond
	maxPoll = 50 * time.Millisecond
)

// openPort waits for the virtio-serial port with the agent's name and opens it.
// It must be opened only once, because a port that is closed loses its queued
// data.
func openPort(ctx context.Context, ports, devices string) (*port, error) {
	var f *os.File
	err := poll.Backoff(ctx, minPoll, maxPoll, func() (bool, error) {
		name, err := findPort(ports)
		if err == nil {
			f, err = os.OpenFile(filepath.Join(devices, name), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		}
		// The device node may appear after the entry in sysfs.
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

// findPort returns the device name of the agent's port. It returns
// fs.ErrNotExist if there is no such port yet.
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

// A port is a virtio-serial port. While the host end is closed, the driver
// answers every read with 0 bytes and every poll(2) with POLLHUP, without
// blocking. But it signals an edge whenever that state changes, and the
// runtime's poller is edge-triggered. So Read waits in the poller and needs no
// timer.
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

// Read waits for data, including while the host end is closed.
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
