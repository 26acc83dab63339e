package verify

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/image/tree"
)

// A Layer is one stored layer of an image.
type Layer struct {
	Digest string // of the layer, for errors; may be empty
	// Open opens the stored layer: a tar, plain or compressed with gzip or zstd.
	Open func(context.Context) (io.ReadCloser, error)
}

// read returns the entries of a layer, with the hashes of their contents. It
// reads the layer to its end, because a reader that checks a digest returns
// its error there.
func (l Layer) read(ctx context.Context, budget *atomic.Int64, windows *windows) (entries []entry, err error) {
	stored, err := l.Open(ctx)
	if err != nil {
		return nil, fmt.Errorf("layer %s: %w", l.Digest, err)
	}
	defer func() {
		if err = errors.Join(err, stored.Close()); err != nil {
			entries, err = nil, fmt.Errorf("layer %s: %w", l.Digest, err)
		}
	}()
	plain, stop, err := decompress(bufio.NewReaderSize(stored, 1<<18), windows)
	if err != nil {
		return nil, err
	}
	defer stop()
	limited := limit(ctx, plain, budget)
	if entries, err = readTar(limited); err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, limited)
	return entries, err
}

// decompress returns the uncompressed stream in r. It recognises the format by
// the first bytes. The caller must call stop after the last read.
func decompress(r *bufio.Reader, w *windows) (plain io.Reader, stop func(), err error) {
	start, err := r.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	switch {
	case len(start) >= 2 && start[0] == 0x1f && start[1] == 0x8b: // RFC 1952, section 2.3.1
		z, err := gzip.NewReader(r)
		return &members{r, z}, func() {}, err
	case isZstd(start):
		return w.open(r)
	}
	return r, func() {}, nil
}

// windows limits the memory of zstd decoders. Layers are read in parallel, but only
// one with a window above common at a time.
type windows struct {
	limit uint64
	wide  sync.Mutex
}

// common is the largest window that zstd(1) reads by default: 128 MiB.
const common = 128 << 20

func (w *windows) open(r *bufio.Reader) (plain io.Reader, stop func(), err error) {
	var h zstd.Header
	start, _ := r.Peek(zstd.HeaderMaxSize) // the decoder returns the error of a short stream
	limit, release := min(w.limit, common), func() {}
	if err := h.Decode(start); err == nil && (h.Skippable || max(h.WindowSize, h.FrameContentSize) > common) {
		w.wide.Lock()
		limit, release = w.limit, w.wide.Unlock
	}
	z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(limit))
	if err != nil {
		release()
		return nil, nil, err
	}
	return z, func() { z.Close(); release() }, nil
}

// members reads the members of a gzip stream, which zeros may follow.
type members struct {
	r *bufio.Reader
	*gzip.Reader
}

func (m *members) Read(p []byte) (int, error) {
	m.Multistream(false)
	n, err := m.Reader.Read(p)
	if n > 0 && errors.Is(err, io.EOF) {
		return n, nil // the next call reads the bytes after the member
	}
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	if next, err := m.r.Peek(1); err == nil && next[0] != 0 {
		return n, m.Reset(m.r)
	}
	for err = nil; err == nil; {
		var b byte
		if b, err = m.r.ReadByte(); err == nil && b != 0 {
			err = errors.New("gzip: data after the last member")
		}
	}
	return n, err
}

// isZstd reports whether b starts a frame or a skippable frame (RFC 8878,
// section 3.1).
func isZstd(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	return string(b) == "\x28\xb5\x2f\xfd" || b[0]&0xf0 == 0x50 && string(b[1:]) == "\x2a\x4d\x18"
}

var errTooLarge = errors.New("layers unpack to more bytes than allowed")

// readerFunc is a function as an io.Reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// limit returns a reader of r that returns an error when ctx ends, or when the
// layers of the image have more bytes than left. All layers share left.
func limit(ctx context.Context, r io.Reader, left *atomic.Int64) io.Reader {
	return readerFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n, err := r.Read(p)
		if left.Add(-int64(n)) < 0 {
			return 0, errTooLarge
		}
		return n, err
	})
}

func readTar(r io.Reader) ([]entry, error) {
	var (
		entries []entry
		global  = map[string]string{}
		buf     = make([]byte, 1<<17)
		t       = tar.NewReader(r)
	)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // the replay checks names
			return nil, fmt.Errorf("entry %d: %w", len(entries)+1, err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			if err := addGlobal(global, h.PAXRecords); err != nil {
				return nil, err
			}
			continue
		}
		e, err := newEntry(h, global)
		if err == nil && e.typ == tree.Regular {
			hash := sha256.New()
			e.size, err = io.CopyBuffer(hash, t, buf)
			hash.Sum(e.sum[:0])
		}
		if err != nil {
			return nil, fmt.Errorf("entry %q: %w", h.Name, err)
		}
		entries = append(entries, e)
	}
}

// addGlobal adds the records of a global header, which apply to all entries
// that follow. It returns an error for a record that makes sense for only one
// entry.
func addGlobal(global, records map[string]string) error {
	for key, value := range records {
		for _, prefix := range []string{
			"path", "linkpath", "size", "SCHILY.xattr.", "SCHILY.acl.", "LIBARCHIVE.xattr.", "RHT.", "GNU.sparse.",
		} {
			if key == prefix || strings.HasSuffix(prefix, ".") && strings.HasPrefix(key, prefix) {
				return fmt.Errorf("global PAX header: record %q for all entries", key)
			}
		}
		global[key] = value
	}
	return nil
}

func newEntry(h *tar.Header, global map[string]string) (entry, error) {
	e := entry{name: h.Name, link: h.Linkname}
	var err error
	if e.typ, err = fileType(h.Typeflag); err != nil {
		return e, err
	}
	e.mode = uint16(h.Mode & 0o7777)
	e.mtime = tree.Time{Sec: h.ModTime.Unix(), Nsec: uint32(h.ModTime.Nanosecond())}
	for _, n := range []struct {
		key  string
		from int64
		to   *uint32
	}{
		{"uid", int64(h.Uid), &e.uid},
		{"gid", int64(h.Gid), &e.gid},
		{"SCHILY.devmajor", h.Devmajor, &e.major},
		{"SCHILY.devminor", h.Devminor, &e.minor},
	} {
		if *n.to, err = number(n.key, n.from, h.PAXRecords, global); err != nil {
			return e, err
		}
	}
	if e.typ != tree.CharDevice && e.typ != tree.BlockDevice {
		e.major, e.minor = 0, 0
	}
	if text := global["mtime"]; text != "" && h.PAXRecords["mtime"] == "" {
		if e.mtime, err = parseTime(text); err != nil {
			return e, err
		}
	}
	if e.typ == tree.Symlink {
		e.target = h.Linkname
	}
	e.xattrs, err = xattrs(h.PAXRecords)
	return e, err
}

// number returns a field at full width: from the entry's own PAX record if
// there is one, else from the global record, else from the header.
func number(key string, header int64, own, global map[string]string) (uint32, error) {
	text := own[key]
	if text == "" {
		text = global[key]
	}
	if text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0, fmt.Errorf("PAX record %s=%s: not a number of 32 bits", key, text)
		}
		return uint32(n), nil
	}
	if header < 0 || header > math.MaxUint32 {
		return 0, fmt.Errorf("%s %d is out of range", key, header)
	}
	return uint32(header), nil
}

// parseTime parses the time of a global record. It accepts only whole seconds,
// the form that git-archive and other programs write.
func parseTime(text string) (tree.Time, error) {
	sec, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return tree.Time{}, fmt.Errorf("global PAX header: mtime %q: not whole seconds", text)
	}
	return tree.Time{Sec: sec}, nil
}

func fileType(flag byte) (tree.Type, error) {
	switch flag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse, 0:
		return tree.Regular, nil
	case tar.TypeLink:
		return tree.HardLink, nil
	case tar.TypeSymlink:
		return tree.Symlink, nil
	case tar.TypeChar:
		return tree.CharDevice, nil
	case tar.TypeBlock:
		return tree.BlockDevice, nil
	case tar.TypeDir:
		return tree.Directory, nil
	case tar.TypeFifo:
		return tree.Fifo, nil
	}
	return 0, fmt.Errorf("tar type flag %q is not known", flag)
}
