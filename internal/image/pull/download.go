package pull

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"
	"strings"
	"time"

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
		meter:  meter{floor: r.minRate, window: r.timeout},
		notice: r.notice,
		blame:  func(from []*endpoint) bool { return r.blame(b.digest, from) },
		isLast: r.isLast,
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
	meter       meter
	notice      func(string)
	blame       func(from []*endpoint) bool // reports whether another download is worth it
	isLast      func(*endpoint) bool
	ctxErr      func() error // returns the context's error, nil before it ends

	started bool
	err     error // of the last Read; every later Read returns it
	partial *partialFile
	file    *os.File    // the blob in the cache, or nil; Read reads it if it is not nil
	part    *part       // the connection, or nil
	skip    int64       // bytes at the beginning of part to discard
	sources []*endpoint // that sent bytes of the blob
	broken  *endpoint   // the sender of part if its connection broke, else nil
	partErr error       // of part; nextChunk handles it after the bytes before it
	offset  int64       // bytes hashed and written
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
	d.offset, d.sources = 0, nil
	return d.partial.reset()
}

// nextChunk returns the next bytes after it has hashed and written them, or
// io.EOF after the last. It retries after an error of the connection.
func (d *download) nextChunk() ([]byte, error) {
	for {
		for d.partErr != nil {
			err := d.partErr
			d.partErr = nil
			if err := d.tryAgain(err); err != nil {
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
			if !slices.Contains(d.sources, p.from) {
				d.sources = append(d.sources, p.from)
			}
			if d.partErr = d.meter.add(p.waited, 0); d.partErr != nil {
				d.broken = p.from
				d.closePart()
				continue
			}
		}
		chunk, err := d.receive()
		if err != nil || len(chunk) > 0 {
			return chunk, err
		}
	}
}

// tryAgain waits until the time of the next request after err. If err broke the
// connection to a mirror, the next request goes to another host at once.
func (d *download) tryAgain(err error) error {
	if from := d.broken; from != nil && !d.isLast(from) && d.ctxErr() == nil {
		d.broken = nil
		d.blame([]*endpoint{from})
		d.notice(fmt.Sprintf("layer %s: mirror %s: %v: asking the next host", d.blob.digest, from.host, classify(err)))
		return nil
	}
	d.broken = nil
	start := time.Now()
	if e := d.waitRetry(err); e != nil {
		return e
	}
	if e, ok := errors.AsType[*statusError](err); ok && e.retryAfter > 0 {
		return nil // the server asked for the wait
	}
	d.partErr = d.meter.add(time.Since(start), 0)
	return nil
}

// receive reads from the connection once. It may return no bytes. It stores an
// error of the connection in d.partErr, and returns all other errors.
func (d *download) receive() ([]byte, error) {
	p := d.part
	start := time.Now()
	n, err := p.Read(d.buf)
	if slow := d.meter.add(time.Since(start), n); slow != nil && !errors.Is(err, io.EOF) {
		err = slow
	}
	skipped := min(int64(n), d.skip)
	d.skip -= skipped
	chunk := d.buf[skipped:n]
	if err != nil {
		// The connection sends nothing more.
		d.closePart()
	}
	if int64(len(chunk)) > p.end-d.offset {
		return nil, d.corrupt(fmt.Errorf("server sends more than %d bytes", p.end-p.start))
	}
	if err != nil && d.offset+int64(len(chunk)) < p.end {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		d.partErr, d.broken = err, p.from
	}
	if len(chunk) == 0 {
		return nil, nil
	}
	d.hash.Write(chunk)
	if _, err := d.partial.Write(chunk); err != nil {
		return nil, d.partial.store.dir.writeError(err)
	}
	d.offset += int64(len(chunk))
	d.retry.progress()
	return chunk, nil
}

func (d *download) closePart() {
	if d.part != nil {
		d.part.Close()
		d.part = nil
	}
}

// corruptError reports a downloaded blob with the wrong content.
type corruptError struct {
	err   error
	from  []*endpoint
	again bool
}

func (e *corruptError) Error() string {
	var hosts []string
	for _, f := range e.from {
		hosts = append(hosts, f.host)
	}
	if len(hosts) == 0 {
		return e.err.Error()
	}
	return fmt.Sprintf("%v (sent by %s)", e.err, strings.Join(hosts, " and "))
}

func (e *corruptError) Unwrap() error { return e.err }

// IsCorrupt reports whether err means that a server sent a layer with the wrong
// content.
func IsCorrupt(err error) bool {
	_, ok := errors.AsType[*corruptError](err)
	return ok
}

// MayRecover reports whether err means that a server sent a layer with the wrong
// content, and that the layer may be right if it is opened and read again.
func MayRecover(err error) bool {
	e, ok := errors.AsType[*corruptError](err)
	return ok && e.again
}

// corrupt returns a *corruptError for this download.
func (d *download) corrupt(err error) error {
	e := &corruptError{err: err, from: d.sources}
	if e.again = d.blame(d.sources); e.again {
		d.notice(fmt.Sprintf("layer %s: %v: reading it again", d.blob.digest, e))
	}
	return e
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
	if e, ok := errors.AsType[*mismatchError](err); ok {
		err = d.corrupt(e)
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
