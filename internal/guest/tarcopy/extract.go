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

// Options say how far a stream is trusted. The zero value trusts it with
// nothing: what is made belongs to whoever makes it, with the stream's modes
// but no setuid or setgid bit, its times, and no extended attributes.
type Options struct {
	// From is what names of the stream begin with, and To what stands there
	// instead; "" is ".", for all names and for nothing. A name that does not
	// begin with From is refused.
	From, To string
	// Owners keeps owners, attributes and, where the owner could be kept,
	// setuid and setgid bits.
	Owners bool
	// Trusted makes devices, takes every attribute, replaces devices and
	// sockets by files, and follows symlinks on the way to a name as long as
	// they stay in the folder.
	Trusted bool
	// Owner, with Owners, is in the place of every owner in the stream.
	Owner *Owner
	// Note is told of what was left out and why; nil is nobody.
	Note func(text string)
}

// An Owner is a user and a group.
type Owner struct{ UID, GID int }

// Extract puts the entries of a tar stream into an existing folder and returns
// how many there were. A file replaces a file in one step, so that a stream
// that breaks off does no harm to the one that was there; a folder that is
// there gets the metadata of the stream's; a folder never replaces a file, nor
// a file a folder. Folders that the stream has no entry for are made, 0755.
// After an error the entries before it stay.
func Extract(ctx context.Context, r io.Reader, dir string, opts Options) (entries int, err error) {
	x, err := newExtractor(dir, opts)
	if err != nil {
		return 0, fmt.Errorf("extract: %w", err)
	}
	defer x.close()
	defer x.left.tell(opts.Note)
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
			continue // no entry: comments, such as git's, and what archive/tar does not apply
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
	// A writer pads its last record: it must not meet a reader that is gone.
	if _, err := io.CopyN(io.Discard, r, maxPadding); err != nil && !errors.Is(err, io.EOF) {
		return entries, fmt.Errorf("extract: read to the stream's end: %w", err)
	}
	return entries, nil
}

// maxPadding is more than any tar program's record has.
const maxPadding = 16 << 20

type extractor struct {
	opts     Options
	parents  parents
	buffer   []byte
	folders  []folder
	pending  int // bytes that folders take
	left     leftOut
	from, to string
}

func newExtractor(dir string, opts Options) (*extractor, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	x := &extractor{opts: opts, buffer: make([]byte, copyBuffer), from: ".", to: "."}
	x.parents = parents{root: root, whole: path.Clean(dir) == "/", follow: opts.Trusted}
	if opts.From != "" {
		x.from = opts.From
	}
	if opts.To != "" {
		x.to = opts.To
	}
	return x, nil
}

func (x *extractor) close() { x.parents.close() }

// name returns what an entry's name, or a hard link's target, means in the
// folder.
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
			return "", errors.New("name has a part of two dots")
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
		return "", fmt.Errorf("not in %s, which was asked for", quote(x.from))
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
		return nil // it was there before, and keeps its metadata, as with docker
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
	p := place{dir: dir, base: path.Base(name)}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		return x.file(ctx, p, h, m, body)
	case tar.TypeSymlink:
		return x.symlink(p, h, m)
	case tar.TypeLink:
		return x.link(p, name, h)
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return x.special(p, h, m)
	}
	return fmt.Errorf("entry of unknown type %q", h.Typeflag)
}

// mayReplace refuses what a file must not take the place of.
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

// mkdir makes a folder, or takes the one that is there. Its metadata is set
// at the end: a read-only folder could get no files, and files change times.
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

// special makes devices and pipes.
func (x *extractor) special(p place, h *tar.Header, m *meta) error {
	kind, device := uint32(unix.S_IFIFO), uint64(0)
	if h.Typeflag != tar.TypeFifo {
		if !x.opts.Trusted {
			x.left.add("devices", h.Name)
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
	return p.publish(func(temporary string) error {
		if err := unix.Mknodat(p.dir, temporary, kind|0o600, int(device)); err != nil { //nolint:gosec // dev_t has 64 bits
			return err
		}
		return x.set(p.dir, temporary, h.Name, m)
	})
}

func (x *extractor) symlink(p place, h *tar.Header, m *meta) error {
	if h.Linkname == "" || len(h.Linkname) > maxName || strings.ContainsRune(h.Linkname, 0) {
		return errors.New("symlink's target is not valid")
	}
	return p.publish(func(temporary string) error {
		if err := unix.Symlinkat(h.Linkname, p.dir, temporary); err != nil {
			return err
		}
		return x.set(p.dir, temporary, h.Name, m)
	})
}

// link makes a hard link, whose metadata is the other name's.
func (x *extractor) link(p place, name string, h *tar.Header) error {
	target, err := x.name(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
	}
	if target == name {
		return errors.New("hard link to itself")
	}
	dir, err := x.parents.peek(path.Dir(target))
	if err != nil {
		return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
	}
	defer dir.Close()
	return p.publish(func(temporary string) error {
		if err := unix.Linkat(int(dir.Fd()), path.Base(target), p.dir, temporary, 0); err != nil {
			return fmt.Errorf("hard link to %s: %w", quote(h.Linkname), err)
		}
		return nil
	})
}

func (x *extractor) file(ctx context.Context, p place, h *tar.Header, m *meta, body io.Reader) error {
	if !x.opts.Trusted && isSparse(h) {
		// A small stream could ask for all of the disk.
		return errors.New("sparse entries are not taken")
	}
	return p.publish(func(temporary string) (err error) {
		fd, err := unix.Openat(p.dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), p.base)
		defer func() { err = errors.Join(err, f.Close()) }()
		if _, err := io.CopyBuffer(writeFunc(f.Write), reader(ctx, body), x.buffer); err != nil {
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
