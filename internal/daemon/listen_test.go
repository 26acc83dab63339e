package daemon

import (
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
	listener, lock, err := listen(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(SocketPath(dir))
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("socket %v, %v", info, err)
	}
	if _, _, err := listen(t.Context(), dir); !errors.Is(err, ErrServed) {
		t.Errorf("second daemon: %v", err)
	}
	if served, err := Served(dir); err != nil || !served {
		t.Errorf("served: %v, %v", served, err)
	}
	if err := errors.Join(listener.Close(), lock.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(SocketPath(dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket still exists: %v", err)
	}
	for _, dir := range []string{dir, t.TempDir()} {
		if served, err := Served(dir); err != nil || served {
			t.Errorf("after its end: %v, %v", served, err)
		}
	}
	c := &api.Client{Socket: SocketPath(dir)}
	if _, err := c.Info(t.Context()); !errors.Is(err, api.ErrUnreachable) {
		t.Errorf("without a daemon: %v", err)
	}
}
