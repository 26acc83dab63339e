// Package treediff compares two directory trees as the kernel shows them, inode by inode: type, mode,
// owner, size, content, times, symlink targets, link groups, extended attributes and device numbers. It
// checks disks of banger, so it shares no code with banger. It follows no symlink.
package treediff

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Tree maps a path relative to the scanned root ("." for the root itself) to its inode.
type Tree map[string]Node

// Node maps the name of a field to its printed value; a field that the type lacks is absent. The fields
// are type, mode (octal, 07777), owner (uid:gid), size (bytes), sha256, seconds, nanoseconds, target,
// device (major:minor), links (their number), group (the first path of the inode in walking order) and
// xattr:NAME (quoted).
type Node map[string]string

// Difference is a field in which two trees differ. If a path is in one tree only, the field is "presence".
type Difference struct {
	Path, Field, Want, Got string
}

func (d Difference) String() string {
	return fmt.Sprintf("%q: %s: want %s, got %s", d.Path, d.Field, d.Want, d.Got)
}

// inode identifies a link group within one scan.
type inode struct{ dev, ino uint64 }

// Scan reads the tree at root. Every name is looked up by its path, so a directory whose listing and
// index disagree is an error.
func Scan(root string) (Tree, error) {
	tree, groups := Tree{}, map[inode]string{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		node, err := scanNode(path, rel, groups)
		if err != nil {
			return err
		}
		tree[rel] = node
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("scan tree: %w", err)
	}
	return tree, nil
}

func scanNode(path, rel string, groups map[inode]string) (Node, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return nil, &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	node := Node{
		"mode":        fmt.Sprintf("%04o", st.Mode&0o7777),
		"owner":       fmt.Sprintf("%d:%d", st.Uid, st.Gid),
		"seconds":     strconv.FormatInt(int64(st.Mtim.Sec), 10),
		"nanoseconds": strconv.FormatInt(int64(st.Mtim.Nsec), 10),
	}
	if err := scanType(path, st, node); err != nil {
		return nil, err
	}
	if node["type"] != "directory" {
		id := inode{uint64(st.Dev), st.Ino}
		if _, seen := groups[id]; !seen {
			groups[id] = rel
		}
		node["group"] = groups[id]
		node["links"] = strconv.FormatUint(uint64(st.Nlink), 10)
	}
	return node, scanXattrs(path, node)
}

// scanType sets the type and the fields that only that type has.
func scanType(path string, st unix.Stat_t, node Node) (err error) {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		node["type"] = "directory"
	case unix.S_IFREG:
		node["type"] = "file"
		node["size"] = strconv.FormatInt(st.Size, 10)
		node["sha256"], err = fileDigest(path)
	case unix.S_IFLNK:
		node["type"] = "symlink"
		node["size"] = strconv.FormatInt(st.Size, 10)
		node["target"], err = os.Readlink(path)
	case unix.S_IFIFO:
		node["type"] = "fifo"
	case unix.S_IFSOCK:
		node["type"] = "socket"
	case unix.S_IFCHR:
		node["type"] = "character device"
		node["device"] = deviceNumbers(uint64(st.Rdev))
	case unix.S_IFBLK:
		node["type"] = "block device"
		node["device"] = deviceNumbers(uint64(st.Rdev))
	default:
		err = fmt.Errorf("%s: unknown type %o", path, st.Mode)
	}
	return err
}

func deviceNumbers(dev uint64) string {
	return fmt.Sprintf("%d:%d", unix.Major(dev), unix.Minor(dev))
}

func fileDigest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// scanXattrs lists the extended attributes and then looks up each value. It returns an error if a name is listed and
// cannot be looked up, which e2fsck does not detect.
func scanXattrs(path string, node Node) error {
	// The largest list and the largest value of the VFS, XATTR_LIST_MAX and XATTR_SIZE_MAX.
	buf := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		return &fs.PathError{Op: "llistxattr", Path: path, Err: err}
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(buf[:n]), "\x00"), "\x00") {
		if name == "" {
			continue
		}
		n, err := unix.Lgetxattr(path, name, buf)
		if err != nil {
			return &fs.PathError{Op: "lgetxattr " + name, Path: path, Err: err}
		}
		node["xattr:"+name] = strconv.Quote(string(buf[:n]))
	}
	return nil
}

// Diff lists how got differs from want, ordered by path and field.
func Diff(want, got Tree) []Difference {
	var out []Difference
	for _, path := range sortedUnion(want, got) {
		w, inWant := want[path]
		g, inGot := got[path]
		if !inWant || !inGot {
			out = append(out, Difference{path, "presence", presence(inWant), presence(inGot)})
			continue
		}
		for _, field := range sortedUnion(w, g) {
			a, inWant := w[field]
			b, inGot := g[field]
			if inWant != inGot || a != b {
				out = append(out, Difference{path, field, value(a, inWant), value(b, inGot)})
			}
		}
	}
	return out
}

func sortedUnion[V any, M ~map[string]V](a, b M) []string {
	keys := slices.AppendSeq(slices.Collect(maps.Keys(a)), maps.Keys(b))
	slices.Sort(keys)
	return slices.Compact(keys)
}

func presence(there bool) string {
	if there {
		return "there"
	}
	return "missing"
}

func value(v string, there bool) string {
	if !there {
		return "none"
	}
	return v
}
