package unixsocket

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLongPath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 50))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	const name = "a.sock"
	if _, err := net.Listen("unix", filepath.Join(dir, name)); err == nil {
		t.Fatal("the path fits into an address: the test cannot fail")
	}
	l, err := In(dir, name, func(path string) (net.Listener, error) { return net.Listen("unix", path) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := In(dir, name, func(path string) (net.Conn, error) { return net.Dial("unix", path) })
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		t.Error(err)
	}
}

func TestNoFolder(t *testing.T) {
	_, err := In(filepath.Join(t.TempDir(), "none"), "a.sock", func(string) (struct{}, error) {
		t.Error("do was called for a folder that does not exist")
		return struct{}{}, nil
	})
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
}
