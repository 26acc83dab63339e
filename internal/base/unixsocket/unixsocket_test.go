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

func TestPathsOfEveryLength(t *testing.T) {
	const name = "a.sock"
	for fits, dir := range map[bool]string{true: "short", false: strings.Repeat("long", 50)} {
		dir = filepath.Join(t.TempDir(), dir)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if direct, err := net.Listen("unix", filepath.Join(dir, name)); (err == nil) != fits {
			t.Fatalf("%s: listen without In: %v, want success: %v", dir, err, fits)
		} else if err == nil {
			direct.Close()
		}
		l, err := In(dir, name, func(path string) (net.Listener, error) {
			if plain := path == filepath.Join(dir, name); plain != fits {
				t.Errorf("the path is %s", path)
			}
			return net.Listen("unix", path)
		})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		conn, err := In(dir, name, func(path string) (net.Conn, error) { return net.Dial("unix", path) })
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
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
