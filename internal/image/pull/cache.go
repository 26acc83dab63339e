package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
)

// Cache is the folder of blobs from registries. Its files are
//
//	oci/              an OCI image layout: oci-layout, index.json, blobs/sha256/HEX
//	partial/HEX       a download that is running or can be resumed
//	partial/HEX-…     a second download of the same blob
//	partial/tmp-…     a small file before it has its name
//	lock              locked while files are added or removed
//
// A blob gets its name after it is complete, verified and synced to disk. A
// download locks its partial file. The process that holds the cache's lock may
// remove partial files that are not locked.
type Cache struct{ dir string }

const (
	dirMode  = 0o700
	blobMode = 0o644

	temporaryPrefix = "tmp-"
	// staleAfter is the age after which prepare removes a partial download.
	staleAfter = 24 * time.Hour
)

// OpenCache returns the cache in the folder dir, which may be missing.
func OpenCache(dir string) *Cache { return &Cache{dir} }

func (c *Cache) layoutDir() string  { return filepath.Join(c.dir, "oci") }
func (c *Cache) blobDir() string    { return filepath.Join(c.dir, "oci", "blobs", "sha256") }
func (c *Cache) partialDir() string { return filepath.Join(c.dir, "partial") }
func (c *Cache) lockPath() string   { return filepath.Join(c.dir, "lock") }

func (c *Cache) blobPath(d digest.Digest) string    { return filepath.Join(c.blobDir(), d.Hex()) }
func (c *Cache) partialPath(d digest.Digest) string { return filepath.Join(c.partialDir(), d.Hex()) }

// withLock runs do while it holds the cache's lock. No other process or goroutine
// adds or removes files of the cache meanwhile. Downloads continue, because each
// has a lock of its own.
func (c *Cache) withLock(ctx context.Context, do func() error) error {
	unlock, err := flock.LockFile(ctx, c.lockPath())
	if err != nil {
		return fmt.Errorf("lock cache: %w", err)
	}
	defer unlock()
	return do()
}

// prepare creates the folders, and removes the files of processes that died.
func (c *Cache) prepare(ctx context.Context) error {
	if c.dir == "" {
		return errors.New("no cache folder given")
	}
	for _, dir := range []string{c.blobDir(), c.partialDir()} {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return fmt.Errorf("make cache: %w", err)
		}
	}
	return c.withLock(ctx, func() error {
		if err := c.initLayout(); err != nil {
			return err
		}
		_, err := c.sweep(func(name string, info fs.FileInfo) bool {
			return name != "" && time.Since(info.ModTime()) < staleAfter
		})
		return err
	})
}

// sweep removes files in partial that no process has locked: temporary files,
// private downloads, downloads whose blob is in the cache, and downloads for
// which keep returns false. It returns the bytes freed. The caller holds the
// cache's lock.
func (c *Cache) sweep(keep func(hex string, info fs.FileInfo) bool) (freed int64, err error) {
	entries, err := os.ReadDir(c.partialDir())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sweep cache: %w", err)
	}
	for _, e := range entries {
		n, err := c.sweepFile(e.Name(), keep)
		if err != nil {
			return freed, fmt.Errorf("sweep cache: %w", err)
		}
		freed += n
	}
	return freed, nil
}

func (c *Cache) sweepFile(name string, keep func(hex string, info fs.FileInfo) bool) (int64, error) {
	path := filepath.Join(c.partialDir(), name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // published or removed after ReadDir
	}
	if err != nil || info.IsDir() {
		return 0, err
	}
	if _, err := digest.ParseDigest("sha256:" + name); err == nil {
		_, err := os.Lstat(filepath.Join(c.blobDir(), name))
		if errors.Is(err, fs.ErrNotExist) && keep(name, info) {
			return 0, nil
		}
	}
	if info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if errors.Is(err, fs.ErrNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		defer f.Close()
		if got, err := flock.TryLock(f); err != nil || !got || !flock.IsAt(f, path) {
			return 0, err
		}
	}
	return info.Size(), os.Remove(path)
}

// createTemp creates a temporary file in partial. The caller holds the cache's
// lock until the file has its name, because sweep removes temporary files.
func (c *Cache) createTemp() (*os.File, error) {
	return os.CreateTemp(c.partialDir(), temporaryPrefix+"*")
}

// writeFile publishes a small file. The caller holds the cache's lock.
func (c *Cache) writeFile(path string, data []byte) error {
	f, err := c.createTemp()
	if err != nil {
		return err
	}
	return atomicfile.WriteTemp(f, path, data, blobMode)
}

// createSpool creates an unnamed file for content that must be read twice. The
// kernel removes it when it is closed or the process ends.
func (c *Cache) createSpool(ctx context.Context) (f *os.File, err error) {
	err = c.withLock(ctx, func() error {
		if f, err = c.createTemp(); err != nil {
			return err
		}
		return os.Remove(f.Name())
	})
	return f, err
}

// document returns a cached document, or nil if it is missing, damaged or larger
// than limit bytes.
func (c *Cache) document(d digest.Digest, limit int64) []byte {
	data, err := readFile(c.blobPath(d), limit)
	if err != nil || digestOf(data) != d {
		return nil // the pull fetches and replaces it
	}
	return data
}

// putDocument adds a verified document.
func (c *Cache) putDocument(ctx context.Context, d digest.Digest, data []byte) error {
	err := c.withLock(ctx, func() error { return c.writeFile(c.blobPath(d), data) })
	if err != nil {
		return c.writeError(err)
	}
	return nil
}

// writeError returns an error of a write to the cache. It omits the blob's path,
// because the layer's error has the digest.
func (c *Cache) writeError(err error) error {
	return fmt.Errorf("write to cache %s: %w", c.dir, withoutPath(err))
}

// has reports whether the cache has a blob of the right size. It does not read
// the blob.
func (c *Cache) has(b blob) bool {
	info, err := os.Lstat(c.blobPath(b.digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == b.size
}

// open opens a cached blob and reads all of it to verify it. It returns nil if
// the cache does not have the blob. It removes a blob that does not match its
// digest.
func (c *Cache) open(ctx context.Context, b blob) (*os.File, error) {
	path := c.blobPath(b.digest)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open cached blob: %w", err)
	}
	intact, err := c.isIntact(ctx, f, b)
	if err == nil && intact {
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			return f, nil
		}
	}
	if err == nil {
		err = c.removeIfSame(ctx, f, path)
	}
	return nil, errors.Join(err, f.Close())
}

// isIntact reports whether f has the size and the digest of b. It returns false
// also if the disk cannot read the content.
func (c *Cache) isIntact(ctx context.Context, f *os.File, b blob) (bool, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != b.size {
		return false, err
	}
	h := sha256.New()
	_, err = io.Copy(h, withContext(ctx, f))
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil && sumOf(h) == b.digest, nil
}

// removeIfSame removes the file at path if it is still f.
func (c *Cache) removeIfSame(ctx context.Context, f *os.File, path string) error {
	return c.withLock(ctx, func() error {
		if !flock.IsAt(f, path) {
			return nil
		}
		return os.Remove(path)
	})
}

// blobs calls do for each blob of the cache, in the order of the digests.
func (c *Cache) blobs(do func(b blob) error) error {
	entries, err := os.ReadDir(c.blobDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read cache: %w", err)
	}
	for _, e := range entries {
		d, err := digest.ParseDigest("sha256:" + e.Name())
		if err != nil {
			continue // not a blob: another program made it
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned after ReadDir
		}
		if err != nil {
			return fmt.Errorf("read cache: %w", err)
		}
		if err := do(blob{d, info.Size()}); err != nil {
			return err
		}
	}
	return nil
}

// Usage returns the total size and the number of the blobs.
func (c *Cache) Usage() (bytes int64, count int, err error) {
	err = c.blobs(func(b blob) error {
		bytes += b.size
		count++
		return nil
	})
	return bytes, count, err
}

// Verify reads every blob and returns those that do not match their digest. It
// removes none of them; a pull that needs such a blob replaces it.
func (c *Cache) Verify(ctx context.Context) (corrupt []digest.Digest, err error) {
	err = c.blobs(func(b blob) error {
		f, err := os.Open(c.blobPath(b.digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("verify cache: %w", err)
		}
		defer f.Close()
		intact, err := c.isIntact(ctx, f, b)
		if err == nil && !intact {
			corrupt = append(corrupt, b.digest)
		}
		return err
	})
	return corrupt, err
}

// Prune removes blobs, partial downloads that no process has locked, and the
// entries of index.json whose manifest is missing. It keeps a blob if keep
// returns true for the blob or for a manifest that refers to it. It returns the
// bytes freed.
func (c *Cache) Prune(ctx context.Context, keep func(digest.Digest) bool) (freed int64, err error) {
	if _, err := os.Lstat(c.dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	err = c.withLock(ctx, func() error {
		needed, err := c.referencedBlobs(keep)
		if err != nil {
			return err
		}
		err = c.blobs(func(b blob) error {
			if keep(b.digest) || needed[b.digest] {
				return ctx.Err()
			}
			if err := os.Remove(c.blobPath(b.digest)); err != nil {
				return fmt.Errorf("prune cache: %w", err)
			}
			freed += b.size
			return nil
		})
		if err != nil {
			return err
		}
		n, err := c.sweep(func(string, fs.FileInfo) bool { return false })
		if freed += n; err != nil {
			return err
		}
		return c.pruneIndex()
	})
	return freed, err
}

// contextReader calls check before each read, and returns its error.
type contextReader struct {
	io.Reader
	check func() error
}

// withContext returns a reader of r whose reads fail after ctx ends.
func withContext(ctx context.Context, r io.Reader) io.Reader {
	return &contextReader{r, func() error { return context.Cause(ctx) }}
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}
