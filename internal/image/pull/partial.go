package pull

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/atomicfile"
)

// partialFile is an incomplete blob that only one download may write.
type partialFile struct {
	store   partialStore
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
		err = atomicfile.Commit(pf.file, pf.store.blobs.path(pf.blob.digest))
	}
	if err == nil {
		err = atomicfile.SyncDir(pf.store.dir.partials())
	}
	if err != nil {
		return pf.store.dir.writeError(err)
	}
	return nil
}

// release closes the file and keeps it for a later download to resume.
func (pf *partialFile) release() error { return pf.file.Close() }

// remove deletes and closes the file.
func (pf *partialFile) remove() error {
	return errors.Join(os.Remove(pf.path), pf.file.Close())
}
