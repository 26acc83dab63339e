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

// Cache is the folder of blobs that registries gave. It holds
//
//	oci/              an OCI image layout: oci-layout, index.json, blobs/sha256/HEX
//	partial/HEX       a download that goes on or can be resumed
//	partial/HEX-…     a download beside another of the same blob
//	partial/tmp-…     a small file before it gets its name
//	lock              held while the set of files changes
//
// A blob has its name only when it is whole, verified and on disk. Whoever
// downloads holds a lock on the partial file; whoever holds the cache's lock
// may remove what nobody has locked.
type Cache struct{ dir string }

const (
	dirMode  = 0o700
	blobMode = 0o644

	temporaryPrefix = "tmp-"
	// staleAfter is when nobody is expected to resume a download any more.
	staleAfter = 24 * time.Hour
)

// OpenCache names the cache in the folder dir, which need not exist yet.
func OpenCache(dir string) *Cache { return &Cache{dir} }

func (c *Cache) layoutDir() string  { return filepath.Join(c.dir, "oci") }
func (c *Cache) blobDir() string    { return filepath.Join(c.dir, "oci", "blobs", "sha256") }
func (c *Cache) partialDir() string { return filepath.Join(c.dir, "partial") }
func (c *Cache) lockPath() string   { return filepath.Join(c.dir, "lock") }

func (c *Cache) blobPath(d digest.Digest) string    { return filepath.Join(c.blobDir(), d.Hex()) }
func (c *Cache) partialPath(d digest.Digest) string { return filepath.Join(c.partialDir(), d.Hex()) }

// locked runs do while no other process, and no other goroutine, changes which
// files the cache has. Downloads continue meanwhile; each locks its own file.
func (c *Cache) locked(ctx context.Context, do func() error) error {
	unlock, err := flock.LockFile(ctx, c.lockPath())
	if err != nil {
		return fmt.Errorf("lock cache: %w", err)
	}
	defer unlock()
	return do()
}

// prepare makes the folders and sweeps what died processes left.
func (c *Cache) prepare(ctx context.Context) error {
	if c.dir == "" {
		return errors.New("no cache folder given")
	}
	for _, dir := range []string{c.blobDir(), c.partialDir()} {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return fmt.Errorf("make cache: %w", err)
		}
	}
	return c.locked(ctx, func() error {
		if err := c.initLayout(); err != nil {
			return err
		}
		_, err := c.sweep(func(name string, info fs.FileInfo) bool {
			return name != "" && time.Since(info.ModTime()) < staleAfter
		})
		return err
	})
}

// sweep removes from partial what nobody has locked: temporary files, private
// downloads, and those whose blob is in the cache or that keep does not want.
// The cache's lock is held.
func (c *Cache) sweep(keep func(hex string, info fs.FileInfo) bool) (freed int64, err error) {
	entries, err := os.ReadDir(c.partialDir())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sweep cache: %w", err)
	}
	for _, e := range entries {
		n, err := c.sweepOne(e.Name(), keep)
		if err != nil {
			return freed, fmt.Errorf("sweep cache: %w", err)
		}
		freed += n
	}
	return freed, nil
}

func (c *Cache) sweepOne(name string, keep func(hex string, info fs.FileInfo) bool) (int64, error) {
	path := filepath.Join(c.partialDir(), name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // published or dropped meanwhile
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

// temporary makes a file in partial that no sweep takes: the cache's lock
// must be held until it has its name.
func (c *Cache) temporary() (*os.File, error) {
	return os.CreateTemp(c.partialDir(), temporaryPrefix+"*")
}

// write publishes a small file. The cache's lock is held.
func (c *Cache) write(path string, data []byte) error {
	f, err := c.temporary()
	if err != nil {
		return err
	}
	return atomicfile.WriteTemp(f, path, data, blobMode)
}

// spool makes a file without a name for what has to be read twice. It is gone
// when it is closed, also by the death of the process.
func (c *Cache) spool(ctx context.Context) (f *os.File, err error) {
	err = c.locked(ctx, func() error {
		if f, err = c.temporary(); err != nil {
			return err
		}
		return os.Remove(f.Name())
	})
	return f, err
}

// document returns a cached document, nil when it is not there whole.
func (c *Cache) document(d digest.Digest, limit int64) []byte {
	data, err := readFile(c.blobPath(d), limit)
	if err != nil || digestOf(data) != d {
		return nil // it is fetched again and replaced
	}
	return data
}

// putDocument adds a document that was verified.
func (c *Cache) putDocument(ctx context.Context, d digest.Digest, data []byte) error {
	err := c.locked(ctx, func() error { return c.write(c.blobPath(d), data) })
	if err != nil {
		return c.fault(err)
	}
	return nil
}

// fault is an error of the disk below the cache, without the name of the
// blob's file, which the layer's error says.
func (c *Cache) fault(err error) error {
	return fmt.Errorf("write to cache %s: %w", c.dir, withoutPath(err))
}

// has reports whether a blob is there with the right size, without reading.
func (c *Cache) has(b blob) bool {
	info, err := os.Lstat(c.blobPath(b.digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == b.size
}

// open returns a cached blob after reading it whole to verify it, or nil when
// the cache does not have it. One that does not match its digest is dropped.
func (c *Cache) open(ctx context.Context, b blob) (*os.File, error) {
	path := c.blobPath(b.digest)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open cached blob: %w", err)
	}
	sound, err := c.isSound(ctx, f, b)
	if err == nil && sound {
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			return f, nil
		}
	}
	if err == nil {
		err = c.drop(ctx, f, path)
	}
	return nil, errors.Join(err, f.Close())
}

// isSound reports whether f holds b. Content that the disk cannot give back
// is not sound either.
func (c *Cache) isSound(ctx context.Context, f *os.File, b blob) (bool, error) {
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

// drop removes the file at path if it still is f.
func (c *Cache) drop(ctx context.Context, f *os.File, path string) error {
	return c.locked(ctx, func() error {
		if !flock.IsAt(f, path) {
			return nil
		}
		return os.Remove(path)
	})
}

// blobs calls do for each blob of the cache, in the order of their digests.
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
			continue // not a name that a blob can have, so not ours to touch
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // pruned meanwhile
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

// Usage returns how many bytes the blobs have together, and how many they are.
func (c *Cache) Usage() (bytes int64, count int, err error) {
	err = c.blobs(func(b blob) error {
		bytes += b.size
		count++
		return nil
	})
	return bytes, count, err
}

// Verify reads every blob and returns those that do not match their digest.
// It changes nothing: a pull that needs such a blob replaces it.
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
		sound, err := c.isSound(ctx, f, b)
		if err == nil && !sound {
			corrupt = append(corrupt, b.digest)
		}
		return err
	})
	return corrupt, err
}

// Prune removes the blobs that keep does not want, with the exception of what
// manifests that it wants refer to; downloads that nobody works on; and the
// entries of index.json whose manifest is gone. It returns the bytes freed.
func (c *Cache) Prune(ctx context.Context, keep func(digest.Digest) bool) (freed int64, err error) {
	if _, err := os.Lstat(c.dir); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	err = c.locked(ctx, func() error {
		needed, err := c.referenced(keep)
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

// contextReader ends with the context's error.
type contextReader struct {
	io.Reader
	check func() error
}

func withContext(ctx context.Context, r io.Reader) io.Reader {
	return &contextReader{r, func() error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}}
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}
