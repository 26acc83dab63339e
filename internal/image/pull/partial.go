package pull

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/flock"
)

// partialFile is an incomplete blob that only one download may write.
type partialFile struct {
	cache   *Cache
	blob    blob
	file    *os.File
	path    string
	resumed int64 // bytes in the file from an earlier download

	written int64 // bytes written after the resumed ones
	flushed int64 // the part of written that the kernel was asked to write to disk
}

// flushEvery is the number of bytes after which Write starts the kernel's
// writeback. Early writeback shortens the fsync at the end.
const flushEvery = 8 << 20

// Write appends to the file.
func (pf *partialFile) Write(p []byte) (int, error) {
	n, err := pf.file.Write(p)
	pf.written += int64(n)
	if behind := pf.written - pf.flushed; behind >= flushEvery {
		// This is only a hint. The fsync in publish reports errors.
		_ = unix.SyncFileRange(int(pf.file.Fd()), pf.resumed+pf.flushed, behind, unix.SYNC_FILE_RANGE_WRITE)
		pf.flushed = pf.written
	}
	return n, err
}

// lockPoll is the interval between attempts to lock a partial file that another
// process has locked.
const lockPoll = 20 * time.Millisecond

// openPartial opens and locks the partial file of b. If another download has
// locked the file, openPartial waits as long as the file grows. After
// stallTimeout without growth it creates a private file, because a stuck process
// must not stop all others. It returns nil if the cache has the blob by then.
func (c *Cache) openPartial(ctx context.Context, b blob, stallTimeout time.Duration) (*partialFile, error) {
	path := c.partialPath(b.digest)
	var size int64 = -1
	last := time.Now()
	for {
		pf, err := c.tryOpenPartial(b, path)
		if pf != nil {
			return pf, nil
		}
		if err != nil {
			return c.createPrivatePartial(ctx, b)
		}
		if c.has(b) {
			return nil, nil
		}
		if info, err := os.Lstat(path); err == nil && info.Size() != size {
			size, last = info.Size(), time.Now()
		}
		if time.Since(last) > stallTimeout {
			return c.createPrivatePartial(ctx, b)
		}
		if err := sleep(ctx, lockPoll); err != nil {
			return nil, err
		}
	}
}

// tryOpenPartial is openPartial without waiting. It returns nil and no error if
// another download has locked the file.
func (c *Cache) tryOpenPartial(b blob, path string) (*partialFile, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	got, err := flock.TryLock(f)
	if err != nil || !got || !flock.IsAt(f, path) {
		return nil, errors.Join(err, f.Close())
	}
	pf := &partialFile{cache: c, blob: b, file: f, path: path}
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

// createPrivatePartial creates a partial file of b that no other download uses.
func (c *Cache) createPrivatePartial(ctx context.Context, b blob) (*partialFile, error) {
	pf := &partialFile{cache: c, blob: b}
	err := c.withLock(ctx, func() (err error) {
		if pf.file, err = os.CreateTemp(c.partialDir(), b.digest.Hex()+"-*"); err != nil {
			return err
		}
		pf.path = pf.file.Name()
		// If the file system has no locks, sweep cannot lock the file either
		// and does not remove it.
		_, _ = flock.TryLock(pf.file)
		return nil
	})
	if err != nil {
		return nil, c.writeError(err)
	}
	return pf, nil
}

// reset empties the file.
func (pf *partialFile) reset() error {
	pf.resumed, pf.written, pf.flushed = 0, 0, 0
	if err := pf.file.Truncate(0); err != nil {
		return err
	}
	_, err := pf.file.Seek(0, io.SeekStart)
	return err
}

// publish moves the verified file to its name in the cache.
func (pf *partialFile) publish() error {
	err := pf.file.Chmod(blobMode)
	if err == nil {
		err = atomicfile.Commit(pf.file, pf.cache.blobPath(pf.blob.digest))
	}
	if err == nil {
		err = atomicfile.SyncDir(pf.cache.partialDir())
	}
	if err != nil {
		return pf.cache.writeError(err)
	}
	return nil
}

// release closes the file and keeps it for a later download to resume.
func (pf *partialFile) release() error { return pf.file.Close() }

// remove deletes and closes the file.
func (pf *partialFile) remove() error {
	return errors.Join(os.Remove(pf.path), pf.file.Close())
}
