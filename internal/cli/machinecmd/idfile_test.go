package machinecmd

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestIDFile checks that close keeps a file with an ID and removes an empty one.
func TestIDFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "id")
	for _, row := range []struct{ name, want string }{{"a start that fails", ""}, {"a start", "0123456789ab"}} {
		t.Run(row.name, func(t *testing.T) {
			id, err := openIDFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if row.want != "" {
				err = id.write(row.want)
			}
			if err := errors.Join(err, id.close()); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(name)
			if string(got) != row.want || (err != nil) != (row.want == "") {
				t.Errorf("ID file has %q, %v, want %q", got, err, row.want)
			}
		})
	}
	if _, err := openIDFile(name); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file that is there: %v", err)
	}
}
