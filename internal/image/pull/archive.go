package pull

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
)

const (
	// maxArchiveEntries bounds the index of an archive.
	maxArchiveEntries = 1 << 16
	// maxEntryName bounds a name in an archive in bytes.
	maxEntryName = 4096
	// maxLinks is how many links lead to a file: docker writes a layer that
	// two images share as a symbolic link.
	maxLinks = 4
	// maxWindow bounds the memory of a zstd decoder in bytes.
	maxWindow = 128 << 20
)

// archive gives the files of a tar in place, by an index made once.
type archive struct {
	at      io.ReaderAt
	entries map[string]archiveEntry
	close   func() error
}

// archiveEntry is a file or link of an archive.
type archiveEntry struct {
	offset, size int64
	link         string // name that it is a link to
	odd          string // why it cannot be used, when that is asked for
}

// openArchive indexes the tar at s.path. One that is compressed or comes from
// a pipe is first spooled to a file without a name.
func openArchive(ctx context.Context, s source, o Options) (*archive, error) {
	in, err := openInput(s.path, o)
	if err != nil {
		return nil, err
	}
	a, err := openArchiveInput(ctx, in, o)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return a, nil
}

func openArchiveInput(ctx context.Context, in *input, o Options) (*archive, error) {
	head := make([]byte, magicSize)
	r := in.reader(ctx)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, err
	}
	plain, compressed, err := decompress(head[:n], io.MultiReader(bytes.NewReader(head[:n]), r))
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	if in.size >= 0 && !compressed {
		return newArchive(ctx, in.file, in.size, in.Close)
	}
	a, err := spoolArchive(ctx, plain, o)
	if err != nil {
		return nil, err
	}
	return a, in.Close()
}

// spoolArchive copies a tar to disk so that it can be read at any offset.
func spoolArchive(ctx context.Context, r io.Reader, o Options) (*archive, error) {
	cache := OpenCache(o.CacheDir)
	if err := cache.prepare(ctx); err != nil {
		return nil, err
	}
	f, err := cache.spool(ctx)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(r, o.maxSpool()+1))
	if err == nil && n > o.maxSpool() {
		err = fmt.Errorf("archive unpacks to more than %d bytes", o.maxSpool())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	a, err := newArchive(ctx, f, n, f.Close)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return a, nil
}

const magicSize = 6

// decompress recognises the compression by its magic number.
func decompress(head []byte, r io.Reader) (plain io.ReadCloser, compressed bool, err error) {
	is := func(magic string) bool { return strings.HasPrefix(string(head), magic) }
	switch {
	case is("\x1f\x8b"):
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, true, fmt.Errorf("read gzip: %w", err)
		}
		return z, true, nil
	case is("\x28\xb5\x2f\xfd"):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, true, fmt.Errorf("read zstd: %w", err)
		}
		return z.IOReadCloser(), true, nil
	case is("\xfd7zXZ\x00"):
		return nil, true, errors.New("compressed with xz, which is not supported")
	case is("BZh"):
		return nil, true, errors.New("compressed with bzip2, which is not supported")
	}
	return io.NopCloser(r), false, nil
}

func newArchive(ctx context.Context, at io.ReaderAt, size int64, closeFile func() error) (*archive, error) {
	a := &archive{at: at, entries: map[string]archiveEntry{}, close: closeFile}
	section := io.NewSectionReader(at, 0, size)
	t := tar.NewReader(section)
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err == nil && n == maxArchiveEntries {
			err = fmt.Errorf("more than %d entries", maxArchiveEntries)
		}
		if err == nil && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		offset, err := section.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
		if err := a.add(h, offset, size); err != nil {
			return nil, fmt.Errorf("read archive: %w", err)
		}
	}
}

// add notes an entry. What cannot be used is refused only when it is asked
// for: archives hold much that no manifest refers to.
func (a *archive) add(h *tar.Header, offset, size int64) error {
	name := path.Clean(h.Name)
	if len(name) > maxEntryName || len(h.Linkname) > maxEntryName {
		return fmt.Errorf("name of more than %d bytes", maxEntryName)
	}
	e := archiveEntry{offset: offset, size: h.Size}
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeReg:
		if h.Size < 0 || h.Size > size-offset {
			return fmt.Errorf("%s: cut short", clean(name))
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				e.odd = "is a sparse file"
			}
		}
	case tar.TypeSymlink:
		e.link = path.Join(path.Dir(name), h.Linkname)
		if path.IsAbs(h.Linkname) {
			e.odd = "is an absolute symbolic link"
		}
	case tar.TypeLink:
		e.link = path.Clean(h.Linkname)
	default:
		e.odd = "is not a regular file"
	}
	if _, ok := a.entries[name]; ok {
		e.odd = "is there twice"
	}
	a.entries[name] = e
	return nil
}

// errNoEntry says that an archive or layout has no such file.
var errNoEntry = errors.New("no such file")

// find returns the regular file that name leads to.
func (a *archive) find(name string) (archiveEntry, error) {
	at := path.Clean(name)
	for range maxLinks {
		e, ok := a.entries[at]
		if !ok {
			return e, fmt.Errorf("%s: %w", clean(name), errNoEntry)
		}
		if e.odd != "" {
			return e, fmt.Errorf("%s: %s", clean(name), e.odd)
		}
		if e.link == "" {
			return e, nil
		}
		at = e.link
	}
	return archiveEntry{}, fmt.Errorf("%s: more than %d links", clean(name), maxLinks)
}

// open implements files.
func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	e, err := a.find(name)
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(io.NewSectionReader(a.at, e.offset, e.size)), e.size, nil
}

// files is a folder or an archive. The caller closes what open returns.
type files interface {
	open(name string) (r io.ReadCloser, size int64, err error)
}

// readEntry reads a whole file of at most limit bytes.
func readEntry(f files, name string, limit int64) ([]byte, error) {
	r, size, err := f.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if size > limit {
		return nil, tooLarge(clean(name), size, limit)
	}
	data, err := readAll(r, min(size, math.MaxInt32))
	if err == nil && int64(len(data)) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", clean(name), err)
	}
	return data, nil
}
