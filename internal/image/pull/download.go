package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/banger-vm/banger/internal/base/digest"
)

// bufferSize is the number of bytes that a download reads, hashes and writes at a
// time.
const bufferSize = 128 << 10

// openBlob returns a reader of b as stored. It opens the blob in the cache, or
// else downloads it from the registry into the cache and calls onCached after
// that. A download sends no request and creates no file before the first Read.
func (r *registry) openBlob(ctx context.Context, c *Cache, b blob, onCached func()) (io.ReadCloser, error) {
	f, err := c.blobs.open(ctx, b)
	if err != nil {
		return nil, err
	}
	if f != nil {
		onCached()
		return &contextFile{f, withContext(ctx, f)}, nil
	}
	retry := r.retrier()
	retry.retryDial = true // the registry sent the manifest, so its address is right
	return &download{
		blob:        b,
		buf:         make([]byte, bufferSize),
		hash:        sha256.New(),
		fetch:       func(offset int64) (*part, error) { return r.fetch(ctx, b, offset) },
		openPartial: func() (*partialFile, error) { return c.partials.open(ctx, b, r.timeout) },
		onCached:    onCached,
		openCached:  func() (*os.File, error) { return c.blobs.open(ctx, b) },
		waitRetry: func(err error) error {
			return retry.wait(ctx, "layer "+string(b.digest), err)
		},
		retry:  retry,
		notice: r.notice,
		ctxErr: func() error { return context.Cause(ctx) },
	}, nil
}

// download is a reader of a blob from a registry. It writes the blob to the cache
// while it reads. Its functions use the context of openBlob.
type download struct {
	blob        blob
	fetch       func(offset int64) (*part, error) // sends one request
	openPartial func() (*partialFile, error)
	openCached  func() (*os.File, error) // returns nil if the blob is not in the cache
	onCached    func()                   // called when the cache has the blob
	waitRetry   func(error) error        // waits until the time of the next attempt
	retry       *retrier
	notice      func(string)
	ctxErr      func() error // returns the context's error, nil before it ends

	started bool
	err     error // of the last Read; every later Read returns it
	partial *partialFile
	file    *os.File // the blob in the cache, or nil; Read reads it if it is not nil
	part    *part    // the connection, or nil
	skip    int64    // bytes at the beginning of part to discard
	partErr error    // of part; nextChunk handles it after the bytes before it
	offset  int64    // bytes hashed and written
	hash    hash.Hash
	buf     []byte
	chunk   []byte // the bytes of buf that Read has not returned yet
}

// Read implements io.Reader. The bytes that it returned are verified only after
// it returns io.EOF.
func (d *download) Read(p []byte) (int, error) {
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	n, err := d.read(p)
	if err != nil && d.file == nil {
		err = d.finish(err)
	}
	d.err = err
	return n, err
}

func (d *download) read(p []byte) (int, error) {
	if !d.started {
		d.started = true
		if err := d.start(); err != nil {
			return 0, err
		}
	}
	if d.file != nil {
		if err := d.ctxErr(); err != nil {
			return 0, err
		}
		return d.file.Read(p)
	}
	if len(d.chunk) == 0 {
		var err error
		if d.chunk, err = d.nextChunk(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}

// start opens the blob's partial file, and resumes an earlier download. If the
// blob is in the cache after that, start opens it as d.file.
func (d *download) start() error {
	for {
		var err error
		if d.partial, err = d.openPartial(); err != nil {
			return err
		}
		if d.file, err = d.openCached(); err != nil {
			return err
		}
		if d.file != nil {
			d.onCached()
			if d.partial != nil {
				err = d.partial.remove()
				d.partial = nil
			}
			return err
		}
		if d.partial != nil {
			break
		}
	}
	if d.partial.resumed == 0 {
		return nil
	}
	return d.resume()
}

// resume completes an earlier download before Read returns any of its bytes. So
// if the earlier bytes are damaged, resume can empty the partial file, and the
// download starts again.
func (d *download) resume() error {
	d.notice(fmt.Sprintf("layer %s: resuming after %d of %d bytes", d.blob.digest, d.partial.resumed, d.blob.size))
	n, err := io.Copy(d.hash, d.partial.file)
	if d.offset = n; err != nil {
		return err
	}
	for err == nil {
		_, err = d.nextChunk()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	err = d.publish()
	if errors.Is(err, io.EOF) {
		_, err = d.file.Seek(0, io.SeekStart)
		return err
	}
	if _, ok := errors.AsType[*mismatchError](err); !ok {
		return err
	}
	d.notice(fmt.Sprintf("layer %s: the earlier download was damaged, starting again", d.blob.digest))
	d.hash.Reset()
	d.offset = 0
	return d.partial.reset()
}

// nextChunk returns the next bytes after it has hashed and written them, or
// io.EOF after the last. It retries after an error of the connection.
func (d *download) nextChunk() ([]byte, error) {
	for {
		if d.partErr != nil {
			err := d.partErr
			d.partErr = nil
			if err := d.waitRetry(err); err != nil {
				return nil, err
			}
		}
		if d.part == nil {
			if d.offset == d.blob.size {
				return nil, io.EOF
			}
			p, err := d.fetch(d.offset)
			if err != nil {
				d.partErr = err
				continue
			}
			d.part, d.skip = p, d.offset-p.start
		}
		chunk, err := d.receive()
		if err != nil || len(chunk) > 0 {
			return chunk, err
		}
	}
}

// receive reads from the connection once. It may return no bytes. It stores an
// error of the connection in d.partErr, and returns all other errors.
func (d *download) receive() ([]byte, error) {
	n, err := d.part.Read(d.buf)
	skipped := min(int64(n), d.skip)
	d.skip -= skipped
	chunk := d.buf[skipped:n]
	if err != nil {
		// The connection sends nothing more.
		d.closePart()
	}
	if int64(len(chunk)) > d.blob.size-d.offset {
		return nil, fmt.Errorf("server sends more than %d bytes", d.blob.size)
	}
	if err != nil && d.offset+int64(len(chunk)) < d.blob.size {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		d.partErr = err
	}
	if len(chunk) == 0 {
		return nil, nil
	}
	d.hash.Write(chunk)
	if _, err := d.partial.Write(chunk); err != nil {
		return nil, d.partial.store.dir.writeError(err)
	}
	d.offset += int64(len(chunk))
	d.retry.progress(len(chunk))
	return chunk, nil
}

func (d *download) closePart() {
	if d.part != nil {
		d.part.Close()
		d.part = nil
	}
}

// publish verifies the blob, adds it to the cache and returns io.EOF.
func (d *download) publish() error {
	if got := digest.FromHash(d.hash); got != d.blob.digest {
		return &mismatchError{got}
	}
	if err := d.partial.publish(); err != nil {
		return err
	}
	d.file, d.partial = d.partial.file, nil
	d.onCached()
	return io.EOF
}

// finish ends a download and returns the error for Read. If err is io.EOF, it
// publishes the blob. Otherwise it removes the partial file, unless the network
// or the server failed after the first bytes, because a later download can then
// resume the file.
func (d *download) finish(err error) error {
	d.closePart()
	if errors.Is(err, io.EOF) {
		err = d.publish()
	}
	if d.partial == nil {
		return err
	}
	keep := d.offset > 0 && (errors.Is(err, ErrNetwork) || isTemporary(err))
	if d.ctxErr() != nil {
		keep = d.partial.resumed > 0 // an interrupt removes only files of this download
	}
	return errors.Join(err, d.releasePartial(keep))
}

// isTemporary reports whether err is a response after which a later request may
// succeed.
func isTemporary(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && e.temporary()
}

// releasePartial closes the partial file, and removes it unless keep is true. It
// never keeps a private file, because no later download opens it.
func (d *download) releasePartial(keep bool) error {
	partial := d.partial
	d.partial = nil
	if keep && partial.path == partial.store.path(partial.blob.digest) {
		return partial.release()
	}
	return partial.remove()
}

// Close implements io.Closer. If the download has neither ended nor failed, Close
// removes its partial file, unless it was resumed from an earlier download.
func (d *download) Close() error {
	d.closePart()
	if d.err == nil {
		d.err = os.ErrClosed
	}
	var err error
	if d.partial != nil {
		err = d.releasePartial(d.partial.resumed > 0)
	}
	if d.file != nil {
		err = errors.Join(err, d.file.Close())
		d.file = nil
	}
	return err
}
