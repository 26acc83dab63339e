package publish

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// names returns the names in a folder, in order.
func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("%s has the names %q, want %q", dir, got, want)
	}
}

func wantContent(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("%s has the content %q, error %v; want %q", path, got, err, want)
	}
}

// writeFile writes a file and the folders that lead to it.
func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFileReplacesTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	for _, content := range []string{"old", "new"} {
		err := File(path, func(f *os.File) error {
			_, err := io.WriteString(f, content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, content)
	}
	wantNames(t, dir, "disk")
}

func TestFileThatFailsKeepsTheOldFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk")
	writeFile(t, path, "old")
	broken := errors.New("broken")
	err := File(path, func(f *os.File) error {
		if _, err := io.WriteString(f, "half"); err != nil {
			t.Fatal(err)
		}
		wantContent(t, path, "old")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	wantContent(t, path, "old")
	wantNames(t, dir, "disk")
}

func TestFileSweepsTheLeftoversOfKilledProcesses(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, scratchPrefix+"dead", "file"), "half")
	if err := File(filepath.Join(dir, "disk"), func(*os.File) error { return nil }); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, "disk")
}

func TestFolderIsMovedToANewName(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	writeFile(t, filepath.Join(from, "f"), "new")
	if err := Folder(from, to); err != nil {
		t.Fatal(err)
	}
	wantContent(t, filepath.Join(to, "f"), "new")
	wantNames(t, dir, "to")
}

func TestFolderChangesPlacesWithTheOldOne(t *testing.T) {
	for name, replace := range map[string]func(from, dir string) error{"exchanged": Folder, "swapped": swap} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
			writeFile(t, filepath.Join(from, "f"), "new")
			writeFile(t, filepath.Join(to, "f"), "old")
			if err := replace(from, to); err != nil {
				t.Fatal(err)
			}
			wantContent(t, filepath.Join(to, "f"), "new")
			old, err := filepath.Glob(filepath.Join(dir, "from*", "f"))
			if err != nil || len(old) != 1 {
				t.Fatalf("the old folder is at %q, error %v; want one place", old, err)
			}
			wantContent(t, old[0], "old")
		})
	}
}

func TestFolderThatDoesNotExistKeepsTheOldOne(t *testing.T) {
	for name, replace := range map[string]func(from, dir string) error{"exchanged": Folder, "swapped": swap} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			to := filepath.Join(dir, "to")
			writeFile(t, filepath.Join(to, "f"), "old")
			if err := replace(filepath.Join(dir, "from"), to); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v, want %v", err, fs.ErrNotExist)
			}
			wantContent(t, filepath.Join(to, "f"), "old")
			wantNames(t, dir, "to")
		})
	}
}
