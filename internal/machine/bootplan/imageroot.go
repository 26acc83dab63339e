package bootplan

import (
	"errors"
	"slices"
	"strings"

	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// An imageRoot looks up paths in the file system of an image, as a process does
// whose root directory it is.
type imageRoot struct{ fs *ext4.FS }

const (
	maxLinks  = 40 // symbolic links in one path: MAXSYMLINKS of linux/namei.h
	rootInode = 2  // EXT4_ROOT_INO
)

var errNoFile = errors.New("no such file")

// lookup returns the inode that name leads to from the root. It follows
// symbolic links, the last one too.
func (r imageRoot) lookup(name string) (*ext4.Inode, error) {
	links := 0
	parts := splitPath(name)
	stack := []uint32{rootInode}
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		if part == ".." {
			stack = stack[:max(1, len(stack)-1)]
			continue
		}
		in, err := r.child(stack[len(stack)-1], part)
		if err != nil {
			return nil, err
		}
		if in.Type != tree.Symlink {
			stack = append(stack, in.Number)
			continue
		}
		if links++; links > maxLinks {
			return nil, errors.New("too many symbolic links")
		}
		target, err := r.fs.Readlink(in)
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(target, "/") {
			stack = stack[:1]
		}
		parts = append(splitPath(target), parts...)
	}
	return r.fs.Inode(stack[len(stack)-1])
}

// child returns the inode of a name in a directory.
func (r imageRoot) child(dir uint32, name string) (*ext4.Inode, error) {
	in, err := r.fs.Inode(dir)
	if err != nil {
		return nil, err
	}
	if in.Type != tree.Directory {
		return nil, errNoFile
	}
	n, err := r.fs.Lookup(in, name)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errNoFile
	}
	return r.fs.Inode(n)
}

func splitPath(name string) []string {
	return slices.DeleteFunc(strings.Split(name, "/"), func(p string) bool { return p == "" || p == "." })
}
