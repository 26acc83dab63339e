package flock

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openFolder opens dir, as each of two processes would.
func openFolder(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func tryLock(t *testing.T, f *os.File) bool {
	t.Helper()
	locked, err := TryLock(f)
	if err != nil {
		t.Fatal(err)
	}
	return locked
}

func TestTryLockExcludesAnotherOpenFile(t *testing.T) {
	dir := t.TempDir()
	first, second := openFolder(t, dir), openFolder(t, dir)
	if !tryLock(t, first) {
		t.Fatal("an unlocked folder was not locked")
	}
	if tryLock(t, second) {
		t.Fatal("a locked folder was locked a second time")
	}
	if err := Close(first); err != nil {
		t.Fatal(err)
	}
	if !tryLock(t, second) {
		t.Error("a folder whose lock was closed was not locked")
	}
}

func TestCloseUnlocksWhileACopyIsOpen(t *testing.T) {
	dir := t.TempDir()
	first, second := openFolder(t, dir), openFolder(t, dir)
	if !tryLock(t, first) {
		t.Fatal("an unlocked folder was not locked")
	}
	copied, err := unix.Dup(int(first.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(copied)
	if err := Close(first); err != nil {
		t.Fatal(err)
	}
	if !tryLock(t, second) {
		t.Error("the lock lasts while a copy of the descriptor is open")
	}
}

func TestTryLockOfAClosedFileIsAnError(t *testing.T) {
	f := openFolder(t, t.TempDir())
	f.Close()
	if locked, err := TryLock(f); locked || err == nil {
		t.Errorf("locked %v, error %v; want an error", locked, err)
	}
}

func TestLockFileWaitsForTheHolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	unlock, err := LockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	const wait = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if _, err := LockFile(ctx, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v of a second lock, want %v", err, context.DeadlineExceeded)
	}
	timer := time.AfterFunc(wait, unlock)
	defer timer.Stop()
	again, err := LockFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestIsAt(t *testing.T) {
	dir := t.TempDir()
	path, other := filepath.Join(dir, "file"), filepath.Join(dir, "other")
	for _, p := range []string{path, other} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !IsAt(f, path) {
		t.Error("IsAt reports false for the file that was opened")
	}
	if err := os.Rename(other, path); err != nil {
		t.Fatal(err)
	}
	if IsAt(f, path) {
		t.Error("IsAt reports true for a file that was replaced")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if IsAt(f, path) {
		t.Error("IsAt reports true for a file that was removed")
	}
}
