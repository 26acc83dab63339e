package tarcopy

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// PackOptions configure Pack. The zero value leaves out nothing.
type PackOptions struct {
	Name   string // first part of the names in the stream; "" is BaseName of the path
	Follow bool   // replace a symlink at the path by its target
	Plain  bool   // leave out extended attributes
	Sparse bool   // write files with holes as entries that only Extract and Expand understand
	// Note is called with a text for each omission. nil ignores them.
	Note func(text string)
}

// Pack writes the file or folder at path as a tar stream. Its names begin with
// the base name of path unless opts has another name. As with docker, symlinks
// in all elements but the last are followed, and in the last one too if path
// ends in a slash or a dot. Symlinks below path are copied. A file with several
// names below path becomes hard links in the stream. Pack includes mounted file
// systems, except for the kernel's own, such as /proc, whose folders stay
// empty. It leaves out sockets.
func Pack(ctx context.Context, w io.Writer, path string, opts PackOptions) error {
	name := opts.Name
	if name == "" {
		name = BaseName(path)
	}
	_, folder := PathForm(path)
	path, err := start(path, opts.Follow || folder, folder)
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	p := packer{tar: tar.NewWriter(w), opts: opts, first: map[inode]string{}, buffer: make([]byte, copyBuffer)}
	st, err := p.add(ctx, path, name)
	if err == nil && isDir(st) {
		err = p.folder(ctx, path, name, st.Dev)
	}
	if err == nil {
		err = p.tar.Close()
	}
	if err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return nil
}

// start checks the file that a stream begins with, and returns its path. If
// follow is set, it resolves symlinks.
func start(path string, follow, folder bool) (string, error) {
	stat := os.Lstat
	if follow {
		stat = os.Stat
	}
	info, err := stat(path)
	if err != nil {
		return "", err
	}
	if folder && !info.IsDir() {
		return "", &os.PathError{Op: "open", Path: path, Err: unix.ENOTDIR}
	}
	if info.Mode().Type() == os.ModeSocket {
		return "", fmt.Errorf("%s: a socket cannot be in a tar stream", path)
	}
	if !follow {
		return path, nil
	}
	return filepath.EvalSymlinks(path)
}

// An inode identifies a file independently of its names.
type inode struct{ device, number uint64 }

type packer struct {
	tar    *tar.Writer
	opts   PackOptions
	first  map[inode]string // first name of each file with several links
	buffer []byte
}

func (p *packer) note(name, text string) {
	if p.opts.Note != nil {
		p.opts.Note(quote(name) + " " + text)
	}
}

func isDir(st *unix.Stat_t) bool { return st.Mode&unix.S_IFMT == unix.S_IFDIR }

// folder adds the files in a folder. device is the folder's device; a file
// system that is mounted in the folder has another one.
func (p *packer) folder(ctx context.Context, path, name string, device uint64) error {
	list, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	for _, e := range list {
		inner := filepath.Join(path, e.Name())
		as := name + "/" + e.Name()
		st, err := p.add(ctx, inner, as)
		if errors.Is(err, unix.ENOENT) {
			p.note(as, "is gone")
			continue
		}
		if err != nil {
			return err
		}
		if !isDir(st) {
			continue
		}
		if st.Dev != device && isKernelState(inner) {
			p.note(as, "is the kernel's, left empty")
			continue
		}
		if err := p.folder(ctx, inner, as, st.Dev); err != nil {
			return err
		}
	}
	return nil
}

// isKernelState reports whether a path is in a file system that shows the
// kernel's state (linux/magic.h).
func isKernelState(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	return slices.Contains([]int64{
		unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC,
		unix.EFIVARFS_MAGIC, unix.SELINUX_MAGIC, unix.BINFMTFS_MAGIC, unix.NSFS_MAGIC, unix.AUTOFS_SUPER_MAGIC,
		mqueueMagic, configfsMagic, fusectlMagic,
	}, int64(st.Type))
}

// Magic numbers that x/sys/unix does not define: ipc/mqueue.c,
// fs/configfs/mount.c and fs/fuse/control.c.
const (
	mqueueMagic   = 0x19800202
	configfsMagic = 0x62656570
	fusectlMagic  = 0x65735543
)

// add writes the entry of one file.
func (p *packer) add(ctx context.Context, path, name string) (*unix.Stat_t, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		return &st, p.file(ctx, path, name)
	}
	h := header(&st, name)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return nil, err
		}
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
		h.Devmajor, h.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	default:
		p.note(name, "is a socket, left out")
		return &st, nil
	}
	if p.setLink(&st, h) {
		return &st, p.tar.WriteHeader(h)
	}
	return &st, p.writeHeader(path, h)
}

// header returns the fields that all entries have.
func header(st *unix.Stat_t, name string) *tar.Header {
	sec, nsec := st.Mtim.Unix()
	return &tar.Header{
		Format: tar.FormatPAX, Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(sec, nsec),
	}
}

// setLink turns a header into that of a hard link and returns true if the file
// was written under another name.
func (p *packer) setLink(st *unix.Stat_t, h *tar.Header) bool {
	if st.Nlink < 2 || isDir(st) {
		return false
	}
	key := inode{uint64(st.Dev), st.Ino}
	first, ok := p.first[key]
	if !ok {
		p.first[key] = h.Name
		return false
	}
	h.Typeflag, h.Linkname, h.Size = tar.TypeLink, first, 0
	return true
}

// writeHeader writes a header with the attributes of the file at path.
func (p *packer) writeHeader(path string, h *tar.Header) error {
	if !p.opts.Plain {
		if err := p.attributes(path, h); err != nil {
			return err
		}
	}
	if err := p.tar.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", h.Name, err)
	}
	return nil
}

// file writes a regular file. Since the caller looked at the path, the file may
// have been replaced or have changed its size.
func (p *packer) file(ctx context.Context, path, name string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s: was replaced while it was read", path)
	}
	h := header(&st, name)
	h.Typeflag, h.Size = tar.TypeReg, st.Size
	if p.setLink(&st, h) {
		return p.tar.WriteHeader(h)
	}
	if p.opts.Sparse {
		if m := mapFile(f, st.Size); m != nil {
			return p.sparse(ctx, f, h, m)
		}
	}
	if err := p.writeHeader(path, h); err != nil {
		return err
	}
	return p.body(ctx, name, io.NewSectionReader(f, 0, st.Size), st.Size)
}

// body writes n bytes of a regular file, and zeros for those that the file has
// lost since.
func (p *packer) body(ctx context.Context, name string, r io.Reader, n int64) error {
	written, err := io.CopyBuffer(writeFunc(p.tar.Write), reader(ctx, r), p.buffer)
	if err != nil || written == n {
		return err
	}
	p.note(name, fmt.Sprintf("became %d bytes shorter while it was read, filled with zeros", n-written))
	return copyAll(writeFunc(p.tar.Write), reader(ctx, readFunc(zeros)), n-written, p.buffer)
}

// attributes adds the extended attributes of the file at path.
func (p *packer) attributes(path string, h *tar.Header) error {
	names, err := readSized(func(b []byte) (int, error) { return unix.Llistxattr(path, b) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "list attributes", Path: path, Err: err}
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(names, []byte{0}), []byte{0}) {
		key := string(name)
		if key == "" || strings.HasPrefix(key, "trusted.overlay.") {
			continue // the prefix belongs to overlay file systems
		}
		if strings.ContainsRune(key, '=') {
			p.note(h.Name, fmt.Sprintf("attribute %q cannot be in a tar stream, left out", key))
			continue
		}
		value, err := readSized(func(b []byte) (int, error) { return unix.Lgetxattr(path, key, b) })
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			continue // it was removed, or this user may not read it
		}
		if err != nil {
			return &os.PathError{Op: "read attribute " + key, Path: path, Err: err}
		}
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords[xattrPrefix+key] = string(value)
	}
	return nil
}

// readSized calls get with a buffer of the right size.
func readSized(get func([]byte) (int, error)) ([]byte, error) {
	for {
		n, err := get(nil)
		if err != nil || n == 0 {
			return nil, err
		}
		b := make([]byte, n)
		n, err = get(b)
		if errors.Is(err, unix.ERANGE) {
			continue // the value has grown
		}
		return b[:max(n, 0)], err
	}
}
