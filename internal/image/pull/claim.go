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

// claim is a partial file that this download alone may write.
type claim struct {
	cache *Cache
	blob  blob
	file  *os.File
	path  string
	old   int64 // bytes of an earlier download in it

	written, flushed int64 // bytes since old; of them on their way to the disk
}

// flushEvery is how many bytes are handed to the disk at a time, so that the
// fsync at the end finds little left to do.
const flushEvery = 8 << 20

// Write appends to the file.
func (cl *claim) Write(p []byte) (int, error) {
	n, err := cl.file.Write(p)
	cl.written += int64(n)
	if behind := cl.written - cl.flushed; behind >= flushEvery {
		// Only a hint: whether all is on disk is what fsync says.
		_ = unix.SyncFileRange(int(cl.file.Fd()), cl.old+cl.flushed, behind, unix.SYNC_FILE_RANGE_WRITE)
		cl.flushed = cl.written
	}
	return n, err
}

// claimPoll is the time between two attempts to take a partial file that another
// process has locked.
const claimPoll = 20 * time.Millisecond

// claim takes the partial file of b. While another download has it, claim
// waits, for as long as that one makes progress; then it makes a private file
// beside it, so that one stuck process does not stop all others. It returns
// nil when the cache got the blob meanwhile.
func (c *Cache) claim(ctx context.Context, b blob, patience time.Duration) (*claim, error) {
	path := c.partialPath(b.digest)
	var size int64 = -1
	last := time.Now()
	for {
		cl, err := c.tryClaim(b, path)
		if cl != nil {
			return cl, nil
		}
		if err != nil {
			return c.privateClaim(ctx, b)
		}
		if c.has(b) {
			return nil, nil
		}
		if info, err := os.Lstat(path); err == nil && info.Size() != size {
			size, last = info.Size(), time.Now()
		}
		if time.Since(last) > patience {
			return c.privateClaim(ctx, b)
		}
		if err := sleep(ctx, claimPoll); err != nil {
			return nil, err
		}
	}
}

// tryClaim returns neither claim nor error when another has the file.
func (c *Cache) tryClaim(b blob, path string) (*claim, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	got, err := flock.TryLock(f)
	if err != nil || !got || !flock.IsAt(f, path) {
		return nil, errors.Join(err, f.Close())
	}
	cl := &claim{cache: c, blob: b, file: f, path: path}
	info, err := f.Stat()
	if err == nil && info.Size() > b.size {
		err = f.Truncate(0)
	} else if err == nil {
		cl.old = info.Size()
	}
	if err != nil {
		return nil, errors.Join(err, cl.remove())
	}
	return cl, nil
}

func (c *Cache) privateClaim(ctx context.Context, b blob) (*claim, error) {
	cl := &claim{cache: c, blob: b}
	err := c.locked(ctx, func() (err error) {
		if cl.file, err = os.CreateTemp(c.partialDir(), b.digest.Hex()+"-*"); err != nil {
			return err
		}
		cl.path = cl.file.Name()
		// Where locks do not work, no sweep can take one either.
		_, _ = flock.TryLock(cl.file)
		return nil
	})
	if err != nil {
		return nil, c.fault(err)
	}
	return cl, nil
}

// reset empties the file.
func (cl *claim) reset() error {
	cl.old, cl.written, cl.flushed = 0, 0, 0
	if err := cl.file.Truncate(0); err != nil {
		return err
	}
	_, err := cl.file.Seek(0, io.SeekStart)
	return err
}

// publish gives the file, which was verified, its name in the cache.
func (cl *claim) publish() error {
	err := cl.file.Chmod(blobMode)
	if err == nil {
		err = atomicfile.Commit(cl.file, cl.cache.blobPath(cl.blob.digest))
	}
	if err == nil {
		err = atomicfile.SyncDir(cl.cache.partialDir())
	}
	if err != nil {
		return cl.cache.fault(err)
	}
	return nil
}

// release leaves the file for a later download to go on with.
func (cl *claim) release() error { return cl.file.Close() }

// remove leaves nothing.
func (cl *claim) remove() error {
	return errors.Join(os.Remove(cl.path), cl.file.Close())
}
