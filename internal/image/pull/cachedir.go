package pull

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/flock"
)

const (
	dirMode  = 0o700
	blobMode = 0o644

	temporaryPrefix = "tmp-"
)

// cacheDir is the path of the cache's folder. Its methods know the places of files
// below it, and write files there.
type cacheDir string

func (d cacheDir) layout() string   { return filepath.Join(string(d), "oci") }
func (d cacheDir) blobs() string    { return filepath.Join(string(d), "oci", "blobs", "sha256") }
func (d cacheDir) partials() string { return filepath.Join(string(d), "partial") }
func (d cacheDir) lockPath() string { return filepath.Join(string(d), "lock") }

// withLock runs do while it holds the cache's lock. No other process or goroutine
// adds or removes files of the cache meanwhile. Downloads continue, because each
// has a lock of its own.
func (d cacheDir) withLock(ctx context.Context, do func() error) error {
	unlock, err := flock.LockFile(ctx, d.lockPath())
	if err != nil {
		return fmt.Errorf("lock cache: %w", err)
	}
	defer unlock()
	return do()
}

// createTemp creates a temporary file in partial. The caller holds the cache's
// lock until the file has its name, because sweep removes temporary files.
func (d cacheDir) createTemp() (*os.File, error) {
	return os.CreateTemp(d.partials(), temporaryPrefix+"*")
}

// writeFile publishes a small file. The caller holds the cache's lock.
func (d cacheDir) writeFile(path string, data []byte) error {
	f, err := d.createTemp()
	if err != nil {
		return err
	}
	return atomicfile.WriteTemp(f, path, data, blobMode)
}

// createSpool creates an unnamed file for content that must be read twice. The
// kernel removes it when it is closed or the process ends.
func (d cacheDir) createSpool(ctx context.Context) (f *os.File, err error) {
	err = d.withLock(ctx, func() error {
		if f, err = d.createTemp(); err != nil {
			return err
		}
		return os.Remove(f.Name())
	})
	return f, err
}

// writeError returns an error of a write to the cache. It omits the blob's path,
// because the layer's error has the digest.
func (d cacheDir) writeError(err error) error {
	return fmt.Errorf("write to cache %s: %w", d, withoutPath(err))
}
