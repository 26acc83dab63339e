package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
)

func TestListen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a-long-name", 15))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(SocketPath(dir), nil, 0o600); err != nil { // as a killed daemon leaves it
		t.Fatal(err)
	}
	data := t.TempDir()
	listener, lock, err := listen(t.Context(), dir, data)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(SocketPath(dir))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	if _, _, err := listen(t.Context(), dir, t.TempDir()); !errors.Is(err, ErrServed) {
		t.Errorf("second daemon on the same socket: %v", err)
	}
	if socket, served, err := Served(data); err != nil || !served || socket != SocketPath(dir) {
		t.Errorf("served: %v, %v, at %q", served, err, socket)
	}
	if err := errors.Join(listener.Close(), lock.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(SocketPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket still exists: %v", err)
	}
	for _, data := range []string{data, t.TempDir()} {
		if socket, served, err := Served(data); err != nil || served || socket != "" {
			t.Errorf("after its end: %v, %v, at %q", served, err, socket)
		}
	}
	c := &api.Client{Socket: SocketPath(dir)}
	if _, err := c.Info(t.Context()); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("without a daemon: %v", err)
	}
}

// TestOneDaemonForEachDataFolder checks that a daemon with another runtime folder waits
// for the daemon that serves the data folder, and replaces it as the one that Served finds.
func TestOneDaemonForEachDataFolder(t *testing.T) {
	data, first, second := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "a-much-longer-name")
	listener, lock, err := listen(t.Context(), first, data)
	if err != nil {
		t.Fatal(err)
	}
	waiting, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := listen(waiting, second, data); !errors.Is(err, context.Canceled) {
		t.Errorf("second daemon of the data folder: %v", err)
	}
	if err := errors.Join(listener.Close(), lock.Close()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{second, first} {
		listener, lock, err = listen(t.Context(), dir, data)
		if err != nil {
			t.Fatal(err)
		}
		if socket, served, err := Served(data); err != nil || !served || socket != SocketPath(dir) {
			t.Errorf("served: %v, %v, at %q", served, err, socket)
		}
		if err := errors.Join(listener.Close(), lock.Close()); err != nil {
			t.Error(err)
		}
	}
}
