package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"
)

// bufferSize in bytes is how much of a download is hashed, written and
// passed on at a time.
const bufferSize = 128 << 10

// openBlob returns the bytes of b as stored, from the cache or else from the
// registry into the cache. Nothing is asked of the network, and no file is
// made, before the first Read.
func (r *registry) openBlob(ctx context.Context, c *Cache, b blob, cached func()) (io.ReadCloser, error) {
	f, err := c.open(ctx, b)
	if err != nil {
		return nil, err
	}
	if f != nil {
		cached()
		return &bound{f, withContext(ctx, f)}, nil
	}
	retry := r.retrier()
	retry.dial = true // the registry has answered before
	return &download{
		blob:   b,
		buf:    make([]byte, bufferSize),
		hash:   sha256.New(),
		fetch:  func(offset int64) (*part, error) { return r.fetch(ctx, b, offset) },
		claim:  func(patience time.Duration) (*claim, error) { return c.claim(ctx, b, patience) },
		cached: cached,
		whole:  func() (*os.File, error) { return c.open(ctx, b) },
		wait: func(err error) error {
			return retry.wait(ctx, "layer "+string(b.digest), err)
		},
		retry:    retry,
		patience: r.timeout,
		notice:   r.notice,
		ended: func() error {
			if ctx.Err() == nil {
				return nil
			}
			return context.Cause(ctx)
		},
	}, nil
}

// bound is a file whose reads end with their context.
type bound struct {
	io.Closer
	io.Reader
}

// download reads a blob from a registry and passes it on while it writes it
// to the cache. Its functions are bound to the context of openBlob.
type download struct {
	blob     blob
	fetch    func(offset int64) (*part, error) // asks once
	claim    func(patience time.Duration) (*claim, error)
	whole    func() (*os.File, error) // the blob from the cache, or nil
	cached   func()                   // told when the cache has the blob
	wait     func(error) error        // until it is time to try again
	retry    *retrier
	patience time.Duration
	notice   func(string)
	ended    func() error // why the context has ended, nil while it has not

	began  bool
	err    error // of the last Read, for good
	mine   *claim
	file   *os.File // where to read from when the cache has the blob
	part   *part    // the connection, or nil
	skip   int64    // bytes of part that are not wanted
	fault  error    // of part, after its last bytes were passed on
	offset int64    // bytes hashed and written
	hash   hash.Hash
	buf    []byte
	chunk  []byte // of buf, not yet passed on
}

// Read implements io.Reader. What it has returned is verified only when it
// returns io.EOF.
func (d *download) Read(p []byte) (int, error) {
	if d.err != nil || len(p) == 0 {
		return 0, d.err
	}
	n, err := d.read(p)
	if err != nil && d.file == nil {
		err = d.end(err)
	}
	d.err = err
	return n, err
}

func (d *download) read(p []byte) (int, error) {
	if !d.began {
		d.began = true
		if err := d.begin(); err != nil {
			return 0, err
		}
	}
	if d.file != nil {
		if err := d.ended(); err != nil {
			return 0, err
		}
		return d.file.Read(p)
	}
	if len(d.chunk) == 0 {
		var err error
		if d.chunk, err = d.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, d.chunk)
	d.chunk = d.chunk[n:]
	return n, nil
}

// begin claims the blob. It may then be in the cache, from a download that
// was waited for or one that is resumed here.
func (d *download) begin() error {
	for {
		var err error
		if d.mine, err = d.claim(d.patience); err != nil {
			return err
		}
		if d.file, err = d.whole(); err != nil {
			return err
		}
		if d.file != nil {
			d.cached()
			if d.mine != nil {
				err = d.mine.remove()
				d.mine = nil
			}
			return err
		}
		if d.mine != nil {
			break
		}
	}
	if d.mine.old == 0 {
		return nil
	}
	return d.resume()
}

// resume completes what an earlier download left, before any of it is passed
// on: should that be damaged, there is still time to begin anew.
func (d *download) resume() error {
	d.notice(fmt.Sprintf("layer %s: going on after %d of %d bytes", d.blob.digest, d.mine.old, d.blob.size))
	n, err := io.Copy(d.hash, d.mine.file)
	if d.offset = n; err != nil {
		return err
	}
	for err == nil {
		_, err = d.next()
	}
	if !errors.Is(err, io.EOF) {
		return err
	}
	err = d.complete()
	if errors.Is(err, io.EOF) {
		_, err = d.file.Seek(0, io.SeekStart)
		return err
	}
	if _, ok := errors.AsType[*mismatchError](err); !ok {
		return err
	}
	d.notice(fmt.Sprintf("layer %s: the earlier download was damaged, beginning anew", d.blob.digest))
	d.hash.Reset()
	d.offset = 0
	return d.mine.reset()
}

// next returns the next bytes, hashed and written, or io.EOF after the last.
func (d *download) next() ([]byte, error) {
	for {
		if d.fault != nil {
			err := d.fault
			d.fault = nil
			if err := d.wait(err); err != nil {
				return nil, err
			}
		}
		if d.part == nil {
			if d.offset == d.blob.size {
				return nil, io.EOF
			}
			p, err := d.fetch(d.offset)
			if err != nil {
				d.fault = err
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

// receive reads from the connection once. It may return no bytes. A fault of
// the connection is noted for later, other errors are returned.
func (d *download) receive() ([]byte, error) {
	n, err := d.part.Read(d.buf)
	skipped := min(int64(n), d.skip)
	d.skip -= skipped
	chunk := d.buf[skipped:n]
	if err != nil {
		// What this connection sent is all that there will be of it.
		d.hangUp()
	}
	if int64(len(chunk)) > d.blob.size-d.offset {
		return nil, fmt.Errorf("server sends more than %d bytes", d.blob.size)
	}
	if err != nil && d.offset+int64(len(chunk)) < d.blob.size {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		d.fault = err
	}
	if len(chunk) == 0 {
		return nil, nil
	}
	d.hash.Write(chunk)
	if _, err := d.mine.Write(chunk); err != nil {
		return nil, d.mine.cache.fault(err)
	}
	d.offset += int64(len(chunk))
	d.retry.progress(len(chunk))
	return chunk, nil
}

func (d *download) hangUp() {
	if d.part != nil {
		// All that was wanted of it has been read or given up.
		_ = d.part.Close()
		d.part = nil
	}
}

// complete verifies the blob, publishes it and returns io.EOF.
func (d *download) complete() error {
	if got := sumOf(d.hash); got != d.blob.digest {
		return &mismatchError{got}
	}
	if err := d.mine.publish(); err != nil {
		return err
	}
	d.file, d.mine = d.mine.file, nil
	d.cached()
	return io.EOF
}

// end turns the end of a download into what Read returns, and decides what
// stays: nothing, unless the network failed after some bytes had come.
func (d *download) end(err error) error {
	d.hangUp()
	if errors.Is(err, io.EOF) {
		err = d.complete()
	}
	if d.mine == nil {
		return err
	}
	keep := d.offset > 0 && (errors.Is(err, ErrNetwork) || isTemporary(err))
	if d.ended() != nil {
		keep = d.mine.old > 0 // what an interrupted run made goes, what it found stays
	}
	return errors.Join(err, d.letGo(keep))
}

// isTemporary reports an answer of a server that may be better later.
func isTemporary(err error) bool {
	e, ok := errors.AsType[*statusError](err)
	return ok && e.temporary()
}

func (d *download) letGo(keep bool) error {
	mine := d.mine
	d.mine = nil
	if keep && mine.path == mine.cache.partialPath(mine.blob.digest) {
		return mine.release()
	}
	return mine.remove()
}

// Close implements io.Closer. A download that has neither ended nor failed
// leaves nothing behind, but for what it was resumed from.
func (d *download) Close() error {
	d.hangUp()
	if d.err == nil {
		d.err = os.ErrClosed
	}
	var err error
	if d.mine != nil {
		err = d.letGo(d.mine.old > 0)
	}
	if d.file != nil {
		err = errors.Join(err, d.file.Close())
		d.file = nil
	}
	return err
}
