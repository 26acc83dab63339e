package tarcopy

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ExtractOptions define how far a stream is trusted. The zero value does not
// trust it: files belong to the user that extracts, with the modes and times of
// the stream, but without setuid and setgid bits and extended attributes.
type ExtractOptions struct {
	// From is the first part of every name in the stream, and To replaces it.
	// "" is ".", which matches every name in From and adds nothing in To.
	// Extract refuses a name that does not begin with From.
	From, To string
	// Owners keeps owners and attributes. It keeps setuid and setgid bits if
	// the owner could be kept.
	Owners bool
	// Trusted creates devices, accepts every attribute, replaces devices and
	// sockets by files, and follows symlinks on the way to a name if they stay
	// in the folder.
	Trusted bool
	// Owner, together with Owners, replaces every owner in the stream.
	Owner *Owner
	// Note is called with a text for each kind of omission. nil ignores them.
	Note func(text string)
}

// An Owner is a user and a group.
type Owner struct{ UID, GID int }

// Extract creates the entries of a tar stream in an existing folder and returns
// their number. It replaces a file by a file atomically, so that a stream that
// ends early does not damage the old file. An existing folder gets the stream's
// metadata. A folder does not replace a file, nor a file a folder. Folders
// without an entry in the stream are created with mode 0755. If Extract fails,
// the earlier entries stay.
func Extract(ctx context.Context, r io.Reader, dir string, opts ExtractOptions) (entries int, err error) {
	x, err := newExtractor(dir, opts)
	if err != nil {
		return 0, fmt.Errorf("extract: %w", err)
	}
	defer x.close()
	defer x.omitted.report(opts.Note)
	in := tar.NewReader(reader(ctx, r))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return entries, fmt.Errorf("extract: read tar stream: %w", err)
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue // not an entry: comments, such as git's, and records that archive/tar does not apply
		}
		if entries++; entries > maxEntries {
			return entries, fmt.Errorf("extract: more than %d entries", maxEntries)
		}
		if err := x.entry(ctx, h, in); err != nil {
			return entries, fmt.Errorf("extract %s: %w", quote(h.Name), err)
		}
	}
	if err := x.finish(); err != nil {
		return entries, fmt.Errorf("extract: %w", err)
	}
	if err := readPadding(r); err != nil {
		return entries, fmt.Errorf("extract: %w", err)
	}
	return entries, nil
}

// readPadding reads to the end of a stream. A writer pads its last record, and
// would fail if the reader were closed.
func readPadding(r io.Reader) error {
	if _, err := io.CopyN(io.Discard, r, maxPadding); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read to the stream's end: %w", err)
	}
	return nil
}

// maxPadding is above the record size of any tar program, in bytes.
const maxPadding = 16 << 20

type extractor struct {
	opts     ExtractOptions
	parents  parents
	buffer   []byte
	folders  []folder
	pending  int // bytes of folders
	omitted  omissions
	from, to string
}

func newExtractor(dir string, opts ExtractOptions) (*extractor, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	x := &extractor{opts: opts, buffer: make([]byte, copyBuffer), from: ".", to: "."}
	x.parents = parents{root: root, isRoot: path.Clean(dir) == "/", follow: opts.Trusted}
	if opts.From != "" {
		x.from = opts.From
	}
	if opts.To != "" {
		x.to = opts.To
	}
	return x, nil
}

func (x *extractor) close() { x.parents.close() }

// name returns the path in the folder for the name of an entry or the target of
// a hard link.
func (x *extractor) name(s string) (string, error) {
	switch {
	case s == "":
		return "", errors.New("no name")
	case len(s) > maxName:
		return "", fmt.Errorf("name of %d bytes, more than %d", len(s), maxName)
	case s[0] == '/':
		return "", errors.New("absolute name")
	case strings.ContainsRune(s, 0):
		return "", errors.New("name with a zero byte")
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == ".." {
			return "", errors.New(`name with a ".." element`)
		}
		if len(part) > maxElement {
			return "", fmt.Errorf("name with a part of %d bytes, more than %d", len(part), maxElement)
		}
	}
	s = path.Clean(s)
	if x.from == "." {
		return path.Join(x.to, s), nil
	}
	rest, ok := strings.CutPrefix(s, x.from)
	if !ok || rest != "" && rest[0] != '/' {
		return "", fmt.Errorf("not in %s, the requested path", quote(x.from))
	}
	return path.Join(x.to, rest), nil
}

func (x *extractor) entry(ctx context.Context, h *tar.Header, body io.Reader) error {
	name, err := x.name(h.Name)
	if err != nil {
		return err
	}
	if name == "." {
		if h.Typeflag != tar.TypeDir {
			return errors.New("a file cannot take the folder's place")
		}
		return nil // the folder exists and keeps its metadata, as with docker
	}
	m, err := x.metaOf(h)
	if err != nil {
		return err
	}
	dir, err := x.parents.open(path.Dir(name))
	if err != nil {
		return err
	}
	if h.Typeflag == tar.TypeDir {
		return x.mkdir(dir, name, m)
	}
	if err := x.mayReplace(dir, path.Base(name)); err != nil {
		return err
	}
	dst := destination{dir: dir, base: path.Base(name)}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(ctx, dst, h, m, body)
	case typeSparse:
		return x.sparse(ctx, dst, h, m, body)
	case tar.TypeSymlink:
		return x.symlink(dst, h, m)
	case tar.TypeLink:
		return x.link(dst, name, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.special(dst, h, m)
	}
	return fmt.Errorf("entry of unknown type %q", h.Typeflag)
}

// mayReplace returns an error if a file must not replace the file base in dir.
func (x *extractor) mayReplace(dir int, base string) error {
	var st unix.Stat_t
	err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return errors.New("cannot replace a folder with a file")
	case unix.S_IFREG, unix.S_IFLNK:
		return nil
	}
	if x.opts.Trusted {
		return nil
	}
	return errors.New("cannot replace a device, pipe or socket")
}

// mkdir creates a folder or accepts an existing one. The metadata is set at the
// end, because a read-only folder accepts no files, and because new files
// change the folder's time.
func (x *extractor) mkdir(dir int, name string, m *meta) error {
	base := path.Base(name)
	err := unix.Mkdirat(dir, base, 0o700)
	existed := errors.Is(err, unix.EEXIST)
	if existed {
		var st unix.Stat_t
		if err = unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && !isDir(&st) {
			err = errors.New("cannot replace a file with a folder")
		}
	}
	if err != nil {
		return err
	}
	x.pending += len(name) + m.size()
	if x.pending > maxPending {
		return fmt.Errorf("folders whose names and attributes have more than %d bytes", maxPending)
	}
	x.folders = append(x.folders, folder{name: name, meta: m, existed: existed})
	return nil
}

// special creates devices and pipes.
func (x *extractor) special(dst destination, h *tar.Header, m *meta) error {
	kind, device := uint32(unix.S_IFIFO), uint64(0)
	if h.Typeflag != tar.TypeFifo {
		if !x.opts.Trusted {
			x.omitted.add("devices", h.Name)
			return nil
		}
		if h.Devmajor < 0 || h.Devmajor > math.MaxUint32 || h.Devminor < 0 || h.Devminor > math.MaxUint32 {
			return fmt.Errorf("device %d:%d: not valid", h.Devmajor, h.Devminor)
		}
		kind, device = unix.S_IFCHR, unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
		if h.Typeflag == tar.TypeBlock {
			kind = unix.S_IFBLK
		}
	}
	return dst.publish(func(temporary string) error {
		if err := unix.Mknodat(dst.dir, temporary, kind|0o600, int(device)); err != nil {
			return err
		}
		return x.set(dst.dir, temporary, h.Name, m)
	})
}

func (x *extractor) symlink(dst destination, h *tar.Header, m *meta) error {
	if h.Linkname == "" || len(h.Linkname) > maxName || strings.ContainsRune(h.Linkname, 0) {
		return errors.New("symlink's target is not valid")
	}
	return dst.publish(func(temporary string) error {
		if err := unix.Symlinkat(h.Linkname, dst.dir, temporary); err != nil {
			return err
		}
		return x.set(dst.dir, temporary, h.Name, m)
	})
}

// link creates a hard link. Its metadata is that of the target.
func (x *extractor) link(dst destination, name string, h *tar.Header) error {
	target, err := x.name(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
	}
	if target == name {
		return errors.New("hard link to itself")
	}
	dir, err := x.parents.openExisting(path.Dir(target))
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
	}
	defer dir.Close()
	return dst.publish(func(temporary string) error {
		if err := unix.Linkat(int(dir.Fd()), path.Base(target), dst.dir, temporary, 0); err != nil {
			return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
		}
		return nil
	})
}

func (x *extractor) file(ctx context.Context, dst destination, h *tar.Header, m *meta, body io.Reader) error {
	if !isSparse(h) {
		return x.create(dst, h, m, func(f *os.File) error {
			_, err := io.CopyBuffer(writeFunc(f.Write), reader(ctx, body), x.buffer)
			return err
		})
	}
	if !x.opts.Trusted {
		// A small stream would take the time of a file of any length.
		return errors.New("sparse entries are not accepted")
	}
	return x.create(dst, h, m, func(f *os.File) error {
		w := &holeWriter{file: f}
		if _, err := io.CopyBuffer(writeFunc(w.Write), reader(ctx, body), x.buffer); err != nil {
			return err
		}
		return w.close()
	})
}

// create creates a regular file, whose content fill writes.
func (x *extractor) create(dst destination, h *tar.Header, m *meta, fill func(*os.File) error) error {
	return dst.publish(func(temporary string) (err error) {
		fd, err := unix.Openat(dst.dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), dst.base)
		defer func() { err = errors.Join(err, f.Close()) }()
		if err := fill(f); err != nil {
			return err
		}
		return x.setFile(f, h.Name, m)
	})
}

func isSparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}
