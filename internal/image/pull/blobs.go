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

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
)

// blobStore has the complete blobs of the cache. The name of a file is the blob's
// digest.
type blobStore struct{ dir cacheDir }

func (s blobStore) path(d digest.Digest) string { return filepath.Join(s.dir.blobs(), d.Hex()) }

// document returns a cached document, or nil if it is missing, damaged or larger
// than limit bytes.
func (s blobStore) document(d digest.Digest, limit int64) []byte {
	data, err := readFile(s.path(d), limit)
	if err != nil || digest.FromBytes(data) != d {
		return nil // the pull fetches and replaces it
	}
	return data
}

// addDocument adds a verified document.
func (s blobStore) addDocument(ctx context.Context, d digest.Digest, data []byte) error {
	err := s.dir.withLock(ctx, func() error { return s.dir.writeFile(s.path(d), data) })
	if err != nil {
		return s.dir.writeError(err)
	}
	return nil
}

// has reports whether the cache has a blob of the right size. It does not read
// the blob.
func (s blobStore) has(b blob) bool {
	info, err := os.Lstat(s.path(b.digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == b.size
}

// open opens a cached blob and reads all of it to verify it. It returns nil if
// the cache does not have the blob. It removes a blob that does not match its
// digest.
func (s blobStore) open(ctx context.Context, b blob) (*os.File, error) {
	path := s.path(b.digest)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open cached blob: %w", err)
	}
	intact, err := isIntact(ctx, f, b)
	if err == nil && intact {
		if _, err = f.Seek(0, io.SeekStart); err == nil {
			return f, nil
		}
	}
	if err == nil {
		err = s.removeIfSame(ctx, f, path)
	}
	return nil, errors.Join(err, f.Close())
}

// isIntact reports whether f has the size and the digest of b. It returns false
// also if the disk cannot read the content.
func isIntact(ctx context.Context, f *os.File, b blob) (bool, error) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() != b.size {
		return false, err
	}
	h := sha256.New()
	_, err = io.Copy(h, withContext(ctx, f))
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	return err == nil && digest.FromHash(h) == b.digest, nil
}

// removeIfSame removes the file at path if it is still f.
func (s blobStore) removeIfSame(ctx context.Context, f *os.File, path string) error {
	return s.dir.withLock(ctx, func() error {
		if !flock.IsAt(f, path) {
			return nil
		}
		return os.Remove(path)
	})
}

// each calls do for each blob of the store, in the order of the digests.
func (s blobStore) each(do func(b blob) error) error {
	entries, err := os.ReadDir(s.dir.blobs())
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
