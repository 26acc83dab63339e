package qemu

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// A file that another user cannot reopen is copied, and no other file is.
func TestOpenBootFile(t *testing.T) {
	for _, row := range []struct {
		name   string
		mode   os.FileMode
		others bool
		copied bool
	}{
		{"public for others", 0o644, true, false},
		{"private for others", 0o600, true, true},
		{"private for the owner", 0o600, false, false},
	} {
		path := filepath.Join(t.TempDir(), "kernel")
		if err := os.WriteFile(path, []byte("kernel"), row.mode); err != nil {
			t.Fatal(err)
		}
		f, err := openBootFile(path, row.others)
		if err != nil {
			t.Fatal(err)
		}
		again, err := os.Open(descriptorPath(int(f.Fd())))
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(again)
		if string(data) != "kernel" || err != nil {
			t.Errorf("%s: %q, %v", row.name, data, err)
		}
		st, err := again.Stat()
		if err != nil {
			t.Fatal(err)
		}
		original, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := !os.SameFile(st, original); got != row.copied {
			t.Errorf("%s: copied %t, want %t", row.name, got, row.copied)
		}
		if row.others && st.Mode()&0o004 == 0 {
			t.Errorf("%s: mode %v", row.name, st.Mode())
		}
		again.Close()
		f.Close()
	}
}
