package jsonfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

type record struct {
	Name string `json:"name"`
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "record.json")
	if err := Write(path, record{"box"}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file: %v, %v, want mode 0600", info, err)
	}
	var got record
	if err := Read(path, info.Size(), &got); err != nil || got.Name != "box" {
		t.Errorf("read: %+v, %v", got, err)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, row := range []struct{ name, content, want string }{
		{"too large", `{"name":"` + strings.Repeat("x", 100) + `"}`, "more than 50 bytes"},
		{"cut off", `{"name":`, "JSON"},
		{"empty", "", "JSON"},
		{"of another shape", `{"name":1}`, "cannot unmarshal"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(dir, "record.json")
			if err := os.WriteFile(path, []byte(row.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := Read(path, 50, new(record)); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error = %v, want one with %q", err, row.want)
			}
		})
	}
	if err := Read(filepath.Join(dir, "none"), 50, new(record)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v, want fs.ErrNotExist", err)
	}
}
