package arg

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/image/build"
)

func TestCheckOutput(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken")
	if err := os.WriteFile(taken, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		path  string
		force bool
		want  error
	}{
		{filepath.Join(dir, "new"), false, nil},
		{taken, false, build.ErrExists},
		{taken, true, nil},
		{filepath.Join(taken, "below"), false, syscall.ENOTDIR},
	} {
		if err := CheckOutput(row.path, row.force); !errors.Is(err, row.want) {
			t.Errorf("%s, %v: got %v, want %v", row.path, row.force, err, row.want)
		}
	}
}
