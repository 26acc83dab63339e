package publish

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func newScratch(t *testing.T, parent string) *Scratch {
	t.Helper()
	s, err := NewScratch(parent)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestScratchIsPrivate(t *testing.T) {
	dir := t.TempDir()
	s := newScratch(t, dir)
	info, err := os.Stat(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, want 0700", info.Mode())
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	wantNames(t, dir)
}

func TestSweepRemovesUnlockedScratchFoldersOnly(t *testing.T) {
	dir := t.TempDir()
	s := newScratch(t, dir)
	writeFile(t, filepath.Join(dir, scratchPrefix+"dead", "deep", "file"), "half")
	writeFile(t, filepath.Join(dir, "other", "file"), "kept")
	writeFile(t, filepath.Join(dir, scratchPrefix+"file"), "not a folder")
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir, filepath.Base(s.Path), scratchPrefix+"file", "other")
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	wantNames(t, dir, scratchPrefix+"file", "other")
}

func TestSweepReportsAParentThatDoesNotExist(t *testing.T) {
	if err := Sweep(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v, want %v", err, fs.ErrNotExist)
	}
}

func TestRemoveEntersDirectoriesOfAnyMode(t *testing.T) {
	dir := t.TempDir()
	s := newScratch(t, dir)
	closed := filepath.Join(s.Path, "tree", "closed")
	writeFile(t, filepath.Join(closed, "file"), "x")
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(); err != nil {
		t.Error(err)
	}
	wantNames(t, dir)
}

func TestInScratchRemovesTheFolderAfterAnError(t *testing.T) {
	dir := t.TempDir()
	broken := errors.New("broken")
	err := InScratch(dir, func(scratch string) error {
		writeFile(t, filepath.Join(scratch, "file"), "x")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	wantNames(t, dir)
}

func TestRemoveFolder(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "folder", "file"), "x")
	if err := RemoveFolder(filepath.Join(dir, "folder")); err != nil {
		t.Fatal(err)
	}
	wantNames(t, dir)
	if err := RemoveFolder(filepath.Join(dir, "folder")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v of a folder that does not exist, want %v", err, fs.ErrNotExist)
	}
	wantNames(t, dir)
}
