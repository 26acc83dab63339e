// Package unpack writes the tree of an ext4 disk into a folder of the host.
//
// It accesses the folder through os.Root, so a name of the image is always a name
// below the folder, and it follows no symlink of the image. It leaves out owners,
// devices and attributes that the host or the user's rights do not allow, and
// returns warnings that count them. If it leaves out the owner of a file, it also
// leaves out the setuid and setgid bits: they would give the rights of another user.
package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// lostFound is the directory that mke2fs and package ext4/write add to a disk. It
// belongs to the image only if it is not empty.
const lostFound = "lost+found"

// Into writes the tree of fs into dir, an empty folder. The warnings count the parts
// that it has left out and name the first paths.
func Into(ctx context.Context, fs *ext4.FS, dir string) (warnings []string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	u := unpacker{fs: fs, root: root, first: map[uint32]string{}, skipped: map[string]*skipped{}}
	err = fs.Walk(func(name string, in *ext4.Inode) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if skip, err := u.isLostFound(name, in); skip || err != nil {
			return err
		}
		if err := u.create(name, in); err != nil {
			return fmt.Errorf("unpack %q: %w", name, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := u.finishDirs(ctx); err != nil {
		return nil, err
	}
	return u.warnings(), nil
}

// unpacker holds the state of one call of Into.
type unpacker struct {
	fs    *ext4.FS
	root  *os.Root
	first map[uint32]string // inode number -> first name, of inodes with several names
	dirs  []directory       // all directories, in the order of the walk
	kinds []string          // of skipped, in order of their first entry

	skipped map[string]*skipped // by kind
}

type directory struct {
	name string
	in   *ext4.Inode
}

// skipped counts the paths at which unpacking left out something of one kind.
type skipped struct {
	count int
	paths []string // the first of them, quoted
}

const namedPaths = 5 // paths that a warning names

// skip records that a part of the entry at path name is left out. kind begins the
// text of the warning.
func (u *unpacker) skip(kind, name string) {
	l := u.skipped[kind]
	if l == nil {
		l = &skipped{}
		u.skipped[kind] = l
		u.kinds = append(u.kinds, kind)
	}
	if l.count++; len(l.paths) < namedPaths {
		l.paths = append(l.paths, strconv.Quote(name))
	}
}

func (u *unpacker) warnings() (out []string) {
	for _, kind := range u.kinds {
		l := u.skipped[kind]
		text := fmt.Sprintf("%s: %d left out: %s", kind, l.count, strings.Join(l.paths, ", "))
		if l.count > len(l.paths) {
			text += ", …"
		}
		out = append(out, text)
	}
	return out
}

// isLostFound reports whether the entry is the empty lost+found of the disk.
func (u *unpacker) isLostFound(name string, in *ext4.Inode) (bool, error) {
	if name != lostFound || in.Type != tree.Directory {
		return false, nil
	}
	empty := true
	err := u.fs.ReadDir(in, func(e ext4.DirEntry) error {
		empty = empty && (e.Name == "." || e.Name == "..")
		return nil
	})
	return empty, err
}

// create writes the entry at path name: a directory without its metadata, everything
// else with it.
func (u *unpacker) create(name string, in *ext4.Inode) error {
	if in.Type == tree.Directory {
		u.dirs = append(u.dirs, directory{name, in})
		if name == "." {
			return nil
		}
		return u.root.Mkdir(name, 0o700)
	}
	if first, ok := u.first[in.Number]; ok {
		return u.root.Link(first, name)
	}
	made, err := u.inode(name, in)
	if err != nil || !made {
		return err
	}
	if in.Links > 1 {
		u.first[in.Number] = name
	}
	return u.metadata(name, in)
}

// inode writes an entry that is not a directory, without its metadata. It reports
// false if it has left out the entry.
func (u *unpacker) inode(name string, in *ext4.Inode) (made bool, err error) {
	switch in.Type {
	case tree.Regular:
		return true, u.file(name, in)
	case tree.Symlink:
		target, err := u.fs.Readlink(in)
		if err != nil {
			return false, err
		}
		return true, u.root.Symlink(target, name)
	case tree.CharDevice, tree.BlockDevice, tree.Fifo:
		kinds := map[tree.Type]uint32{tree.CharDevice: unix.S_IFCHR, tree.BlockDevice: unix.S_IFBLK, tree.Fifo: unix.S_IFIFO}
		err := u.inParent(name, func(dir int, base string) error {
			return unix.Mknodat(dir, base, kinds[in.Type]|0o600, int(unix.Mkdev(in.Major, in.Minor)))
		})
		if errors.Is(err, unix.EPERM) {
			u.skip("devices", name)
			return false, nil
		}
		return true, err
	default:
		return false, fmt.Errorf("inode %d is of no known type", in.Number)
	}
}

// file writes a regular file. It keeps the holes.
func (u *unpacker) file(name string, in *ext4.Inode) (err error) {
	data, err := u.fs.Data(in)
	if err != nil {
		return err
	}
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(data.Size()); err != nil {
		return err
	}
	for _, r := range data.Runs() {
		length := min(r.Length, data.Size()-r.Offset)
		if _, err := io.Copy(io.NewOffsetWriter(f, r.Offset), io.NewSectionReader(data, r.Offset, length)); err != nil {
			return err
		}
	}
	return nil
}

// finishDirs sets the metadata of the directories, the deepest first. It does so
// after all entries are written, because the mode of a directory may not allow to
// add entries and an added entry changes the directory's time.
func (u *unpacker) finishDirs(ctx context.Context) error {
	for i := len(u.dirs) - 1; i >= 0; i-- {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := u.metadata(u.dirs[i].name, u.dirs[i].in); err != nil {
			return fmt.Errorf("unpack %q: %w", u.dirs[i].name, err)
		}
	}
	return nil
}

// metadata sets owner, attributes, mode and time, in this order: chown(2) clears
// setuid bits and capabilities.
func (u *unpacker) metadata(name string, in *ext4.Inode) error {
	mode := uint32(in.Mode)
	err := u.root.Lchown(name, int(in.UID), int(in.GID))
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) {
		u.skip("owners", name)
		mode &^= unix.S_ISUID | unix.S_ISGID
	} else if err != nil {
		return err
	}
	return u.inParent(name, func(dir int, base string) error {
		if err := u.xattrs(dir, base, name, in); err != nil {
			return err
		}
		if in.Type != tree.Symlink { // symlinks have no mode on Linux
			if err := unix.Fchmodat(dir, base, mode, 0); err != nil {
				return err
			}
		}
		t := time.Unix(in.Mtime.Sec, int64(in.Mtime.Nsec))
		ts, err := unix.TimeToTimespec(t)
		if err != nil {
			return err
		}
		return unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// xattrs sets the extended attributes of base in the open folder dir, whose path in
// the image is name.
func (u *unpacker) xattrs(dir int, base, name string, in *ext4.Inode) error {
	list, err := u.fs.Xattrs(in)
	if err != nil {
		return err
	}
	for _, x := range list {
		// setxattrat(2) needs Linux 6.13. base has no slash, so the path does not leave dir.
		err := unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(dir)+"/"+base, x.Name, []byte(x.Value), 0)
		switch {
		case errors.Is(err, unix.EPERM), errors.Is(err, unix.ENOTSUP), errors.Is(err, unix.EINVAL):
			u.skip("attributes "+x.Name, name)
		case err != nil:
			return err
		}
	}
	return nil
}

// inParent calls do with the open folder that holds name and the last element of
// name. os.Root opens the folder without leaving the root.
func (u *unpacker) inParent(name string, do func(dir int, base string) error) error {
	dir, err := u.root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(int(dir.Fd()), path.Base(name))
}
