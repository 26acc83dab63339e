package pull

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/image/gunzip"
)

const (
	// maxArchiveEntries is the maximum number of entries in an archive.
	maxArchiveEntries = 1 << 16
	// maxEntryName is the maximum length in bytes of a name in an archive.
	maxEntryName = 4096
	// maxLinks is the maximum number of links that find follows to a file. If two
	// images share a layer, docker writes a symbolic link for one of them.
	maxLinks = 4
)

// archive reads the files of a tar in place, by an index of their offsets.
type archive struct {
	at      io.ReaderAt
	entries map[string]archiveEntry
	close   func() error
}

// archiveEntry is a file or link of an archive.
type archiveEntry struct {
	offset, size int64
	link         string // target of a link, else ""
	unusable     string // reason why find refuses the entry, else ""
}

// openArchive indexes the tar at s.path. If the tar is compressed or comes from
// a pipe, openArchive first copies it to an unnamed file.
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
	plain, compressed, err := decompress(head[:n], io.MultiReader(bytes.NewReader(head[:n]), r), o.maxWindow())
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

// spoolArchive copies a tar to an unnamed file, which can be read at any offset.
func spoolArchive(ctx context.Context, r io.Reader, o Options) (*archive, error) {
	cache := OpenCache(o.CacheDir)
	if err := cache.prepare(ctx); err != nil {
		return nil, err
	}
	f, err := cache.dir.createSpool(ctx)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(r, o.maxSpool()+1))
	if errors.Is(err, zstd.ErrWindowSizeExceeded) {
		err = &LimitError{"archive has a large zstd window", o.maxWindow(), "--max-window"}
	}
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

// decompress detects the compression by its magic number, and returns a reader
// of the decompressed content.
func decompress(head []byte, r io.Reader, maxWindow int64) (plain io.ReadCloser, compressed bool, err error) {
	is := func(magic string) bool { return strings.HasPrefix(string(head), magic) }
	switch {
	case is("\x1f\x8b"):
		return io.NopCloser(gunzip.NewReader(r)), true, nil
	case is("\x28\xb5\x2f\xfd"):
		z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(uint64(maxWindow)), zstd.WithDecoderConcurrency(1))
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

// add indexes an entry. An unusable entry causes an error only in find, because
// archives contain entries that no manifest refers to.
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
			return fmt.Errorf("%s: truncated", printable(name))
		}
		for key := range h.PAXRecords {
			if strings.HasPrefix(key, "GNU.sparse.") {
				e.unusable = "is a sparse file"
			}
		}
	case tar.TypeSymlink:
		e.link = path.Join(path.Dir(name), h.Linkname)
		if path.IsAbs(h.Linkname) {
			e.unusable = "is an absolute symbolic link"
		}
	case tar.TypeLink:
		e.link = path.Clean(h.Linkname)
	default:
		e.unusable = "is not a regular file"
	}
	if _, ok := a.entries[name]; ok {
		e.unusable = "appears twice"
	}
	a.entries[name] = e
	return nil
}

// errNoEntry reports that an archive or a layout does not have a file.
var errNoEntry = errors.New("no such file")

// find returns the regular file with the given name. It follows links.
func (a *archive) find(name string) (archiveEntry, error) {
	at := path.Clean(name)
	for range maxLinks {
		e, ok := a.entries[at]
		if !ok {
			return e, fmt.Errorf("%s: %w", printable(name), errNoEntry)
		}
		if e.unusable != "" {
			return e, fmt.Errorf("%s: %s", printable(name), e.unusable)
		}
		if e.link == "" {
			return e, nil
		}
		at = e.link
	}
	return archiveEntry{}, fmt.Errorf("%s: more than %d links", printable(name), maxLinks)
}

// open implements files.
func (a *archive) open(name string) (io.ReadCloser, int64, error) {
	e, err := a.find(name)
	if err != nil {
		return nil, 0, err
	}
	return io.NopCloser(io.NewSectionReader(a.at, e.offset, e.size)), e.size, nil
}

// files is a folder or an archive. The caller closes the reader that open
// returns.
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
		return nil, tooLarge(printable(name), size, limit)
	}
	data, err := readAll(r, min(size, math.MaxInt32))
	if err == nil && int64(len(data)) != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", printable(name), err)
	}
	return data, nil
}
