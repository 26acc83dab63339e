package pull

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
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
type Cache struct {
	dir      cacheDir
	blobs    blobStore
	partials partialStore
	index    layoutIndex
}

// staleAfter is the age after which prepare removes a partial download.
const staleAfter = 24 * time.Hour

// OpenCache returns the cache in the folder path, which may be missing.
func OpenCache(path string) *Cache {
	dir := cacheDir(path)
	blobs := blobStore{dir}
	return &Cache{dir: dir, blobs: blobs, partials: partialStore{dir, blobs}, index: layoutIndex{dir, blobs}}
}

// prepare creates the folders, and removes the files of processes that died.
func (c *Cache) prepare(ctx context.Context) error {
	if c.dir == "" {
		return errors.New("no cache folder given")
	}
	for _, dir := range []string{c.dir.blobs(), c.dir.partials()} {
		if err := os.MkdirAll(dir, dirMode); err != nil {
			return fmt.Errorf("make cache: %w", err)
		}
	}
	return c.dir.withLock(ctx, func() error {
		if err := c.index.init(); err != nil {
			return err
		}
		_, err := c.partials.sweep(func(info fs.FileInfo) bool { return time.Since(info.ModTime()) < staleAfter })
		return err
	})
}

// Usage returns the total size and the number of the blobs.
func (c *Cache) Usage() (bytes int64, count int, err error) {
	err = c.blobs.each(func(b blob) error {
		bytes += b.size
		count++
		return nil
	})
	return bytes, count, err
}

// Verify reads every blob and returns those that do not match their digest. It
// removes none of them; a pull that needs such a blob replaces it.
func (c *Cache) Verify(ctx context.Context) (corrupt []digest.Digest, err error) {
	err = c.blobs.each(func(b blob) error {
		f, err := os.Open(c.blobs.path(b.digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("verify cache: %w", err)
		}
		defer f.Close()
		intact, err := isIntact(ctx, f, b)
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
	if _, err := os.Lstat(string(c.dir)); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	err = c.dir.withLock(ctx, func() error {
		needed, err := c.index.referencedBlobs(keep)
		if err != nil {
			return err
		}
		err = c.blobs.each(func(b blob) error {
			if keep(b.digest) || needed[b.digest] {
				return ctx.Err()
			}
			if err := os.Remove(c.blobs.path(b.digest)); err != nil {
				return fmt.Errorf("prune cache: %w", err)
			}
			freed += b.size
			return nil
		})
		if err != nil {
			return err
		}
		n, err := c.partials.sweep(func(fs.FileInfo) bool { return false })
		if freed += n; err != nil {
			return err
		}
		return c.index.prune()
	})
	return freed, err
}
