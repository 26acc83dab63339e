package pull

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
)

// partialStore has the files of downloads that run or can be resumed.
type partialStore struct {
	dir   cacheDir
	blobs blobStore // has a blob after its download is complete
}

func (s partialStore) path(d digest.Digest) string { return filepath.Join(s.dir.partials(), d.Hex()) }

// sweep removes files in partial that no process has locked: temporary files,
// private downloads, downloads whose blob is in the cache, and downloads for
// which keep returns false. It returns the bytes freed. The caller holds the
// cache's lock.
func (s partialStore) sweep(keep func(fs.FileInfo) bool) (freed int64, err error) {
	entries, err := os.ReadDir(s.dir.partials())
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("sweep cache: %w", err)
	}
	for _, e := range entries {
		n, err := s.sweepFile(e.Name(), keep)
		if err != nil {
			return freed, fmt.Errorf("sweep cache: %w", err)
		}
		freed += n
	}
	return freed, nil
}

func (s partialStore) sweepFile(name string, keep func(fs.FileInfo) bool) (int64, error) {
	path := filepath.Join(s.dir.partials(), name)
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // published or removed after ReadDir
	}
	if err != nil || info.IsDir() {
		return 0, err
	}
	if _, err := digest.ParseDigest("sha256:" + name); err == nil {
		_, err := os.Lstat(filepath.Join(s.dir.blobs(), name))
		if errors.Is(err, fs.ErrNotExist) && keep(info) {
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

// lockPoll is the interval between attempts to lock a partial file that another
// process has locked.
const lockPoll = 20 * time.Millisecond

// open opens and locks the partial file of b. If another download has locked the
// file, open waits as long as the file grows. After stallTimeout without growth
// it creates a private file, because a stuck process must not stop all others.
// It returns nil if the cache has the blob by then.
func (s partialStore) open(ctx context.Context, b blob, stallTimeout time.Duration) (*partialFile, error) {
	path := s.path(b.digest)
	var size int64 = -1
	last := time.Now()
	for {
		pf, err := s.tryOpen(b, path)
		if pf != nil {
			return pf, nil
		}
		if err != nil {
			return s.createPrivate(ctx, b)
		}
		if s.blobs.has(b) {
			return nil, nil
		}
		if info, err := os.Lstat(path); err == nil && info.Size() != size {
			size, last = info.Size(), time.Now()
		}
		if time.Since(last) > stallTimeout {
			return s.createPrivate(ctx, b)
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}

// tryOpen is open without waiting. It returns nil and no error if another download
// has locked the file.
func (s partialStore) tryOpen(b blob, path string) (*partialFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	got, err := flock.TryLock(f)
	if err != nil || !got || !flock.IsAt(f, path) {
		return nil, errors.Join(err, f.Close())
	}
	pf := &partialFile{store: s, blob: b, file: f, path: path}
	info, err := f.Stat()
	if err == nil && info.Size() > b.size {
		err = f.Truncate(0)
	} else if err == nil {
		pf.resumed = info.Size()
	}
	if err != nil {
		return nil, errors.Join(err, pf.remove())
	}
	return pf, nil
}

// createPrivate creates a partial file of b that no other download uses.
func (s partialStore) createPrivate(ctx context.Context, b blob) (*partialFile, error) {
	pf := &partialFile{store: s, blob: b}
	err := s.dir.withLock(ctx, func() (err error) {
		if pf.file, err = os.CreateTemp(s.dir.partials(), b.digest.Hex()+"-*"); err != nil {
			return err
		}
		pf.path = pf.file.Name()
		// If the file system has no locks, sweep cannot lock the file either
		// and does not remove it.
		_, _ = flock.TryLock(pf.file)
		return nil
	})
	if err != nil {
		return nil, s.dir.writeError(err)
	}
	return pf, nil
}
