package qemu_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// TestStartFails covers the reasons why a machine may not start. Start returns
// the reason and leaves no process, because it waits for its end.
func TestStartFails(t *testing.T) {
	for _, row := range []struct {
		mode   string
		change func(*vmm.Config)
		want   string
	}{
		{"refuse", nil, "ended with code 1: Could not access KVM kernel module: Permission denied"},
		{"flood", nil, "control message of more than 65536 bytes"},
		{"garbage", nil, "control message: invalid character"},
		{"mute", nil, "context deadline exceeded"},
		{"hang", func(c *vmm.Config) { c.Kernel += "-none" }, "kernel-none: no such file"},
		{"hang", func(c *vmm.Config) { c.Kernel = c.Dir }, "not a regular file"},
		{"hang", func(c *vmm.Config) { c.Dir += "/none" }, "none: no such file"},
		{"hang", func(c *vmm.Config) { c.Disks = []vmm.Disk{{Serial: "d", Format: vmm.Raw, Path: c.Dir + "/none"}} }, "none: no such file"},
		{"hang", func(c *vmm.Config) { c.Model = "pc" }, `machine model "pc"`},
	} {
		t.Run(row.mode+" "+row.want, func(t *testing.T) {
			t.Parallel()
			f, cfg := newFake(t, row.mode), fakeConfig(t)
			if row.change != nil {
				row.change(&cfg)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if row.mode == "mute" {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), time.Second)
			}
			defer cancel()
			m, err := f.Start(ctx, cfg)
			if err == nil {
				t.Fatal("started", m.Kill())
			}
			if !strings.Contains(err.Error(), row.want) || strings.Contains(err.Error(), "/proc/self") {
				t.Errorf("%v, want an error with %q", err, row.want)
			}
			if _, err := os.Stat(filepath.Join(cfg.Dir, "qmp.sock")); err == nil {
				if conn, err := new(net.Dialer).DialContext(t.Context(), "unix", filepath.Join(cfg.Dir, "qmp.sock")); err == nil {
					conn.Close()
					t.Error("a process still listens on the socket")
				}
			}
		})
	}
}

// TestCrash checks that the unexpected end of a process is an error with the
// last part of its output.
func TestCrash(t *testing.T) {
	f := newFake(t, "crash")
	m, err := f.Start(t.Context(), fakeConfig(t))
	if err == nil {
		err = m.Wait()
	}
	exit := (*vmm.ExitError)(nil)
	if !errors.As(err, &exit) {
		t.Fatalf("%v, want an ExitError", err)
	}
	if exit.Code != -1 || exit.Signal != "SIGKILL" || !strings.HasSuffix(exit.Output, "Suberror: 1") || len(exit.Output) > 4<<10 {
		t.Errorf("code %d, signal %q, %d bytes of output", exit.Code, exit.Signal, len(exit.Output))
	}
}

func TestCommands(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		f := newFake(t, "refuse commands")
		m, err := f.Start(t.Context(), fakeConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Kill()
		refused := (*qemu.QMPError)(nil)
		if err := m.Stop(t.Context()); !errors.As(err, &refused) || refused.Desc != "not now" {
			t.Errorf("stop: %v", err)
		}
		if status, err := m.QueryStatus(t.Context()); !errors.As(err, &refused) {
			t.Errorf("status %q, %v", status, err)
		}
	})
	t.Run("unanswered", func(t *testing.T) {
		f := newFake(t, "hang")
		m, err := f.Start(t.Context(), fakeConfig(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := m.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("stop: %v", err)
		}
		if err := m.Quit(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("quit: %v", err)
		}
		if err := m.Kill(); err != nil {
			t.Errorf("kill: %v", err)
		}
		if err := m.Wait(); err != nil {
			t.Errorf("wait after kill: %v", err)
		}
		if err := m.Cont(t.Context()); err == nil {
			t.Error("a machine that has ended was resumed")
		}
	})
	t.Run("without a port", func(t *testing.T) {
		f, cfg := newFake(t, "hang"), fakeConfig(t)
		cfg.AgentPort = ""
		m, err := f.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Kill()
		if conn, err := m.DialAgent(t.Context()); err == nil {
			conn.Close()
			t.Error("connected to the agent of a machine without a port")
		}
	})
}

// TestHostDiskFull checks that a machine reports a stop for lack of space on the
// host, and its end.
func TestHostDiskFull(t *testing.T) {
	f := newFake(t, "disk full")
	m, err := f.Start(t.Context(), fakeConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	select {
	case <-m.Changes(): // the fake's RESUME at its start
	default:
	}
	if full, err := m.HostDiskFull(t.Context()); !full || err != nil {
		t.Errorf("after an error of a disk: %v, %v", full, err)
	}
	for _, event := range []string{"STOP", "RESUME"} {
		select {
		case <-m.Changes():
		case <-time.After(10 * time.Second):
			t.Fatalf("no change after %s", event)
		}
		if event == "STOP" {
			if err := m.Cont(t.Context()); err != nil {
				t.Errorf("cont: %v", err)
			}
		}
	}
	if full, err := m.HostDiskFull(t.Context()); full || err != nil {
		t.Errorf("after cont: %v, %v", full, err)
	}
}

// A socket's address has room for only 108 bytes.
func TestLongFolder(t *testing.T) {
	f, cfg := newFake(t, "hang"), fakeConfig(t)
	cfg.Dir = filepath.Join(cfg.Dir, strings.Repeat("long/", 40))
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m, err := f.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
}
