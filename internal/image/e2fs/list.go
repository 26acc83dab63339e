package e2fs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// findInodes sets r.inodes to the numbers that mkfs.ext4 gave to the inodes of
// the tree. It lists directories by number, one level of the tree at a time,
// so that no command needs a path.
func (r *restorer) findInodes(ctx context.Context) error {
	r.inodes[tree.Root] = rootInode
	level := []tree.ID{tree.Root}
	for len(level) > 0 {
		below, err := r.list(ctx, level)
		if err != nil {
			return err
		}
		level = below
	}
	return nil
}

// list lists directories whose inode numbers are known. It returns the
// directories in them.
func (r *restorer) list(ctx context.Context, dirs []tree.ID) ([]tree.ID, error) {
	s, err := r.work.newScript()
	if err != nil {
		return nil, err
	}
	for _, id := range dirs {
		s.add("ls -p <%d>", r.inodes[id])
	}
	if err := s.close(); err != nil {
		return nil, err
	}
	l := listing{restorer: r, dirs: dirs, at: -1}
	if err := r.runScript(ctx, s, l.line); err != nil {
		return nil, err
	}
	if err := l.begin(len(dirs)); err != nil {
		return nil, err
	}
	return l.below, nil
}

// listing parses the output of ls -p for several directories.
type listing struct {
	*restorer
	dirs  []tree.ID
	at    int                // index in dirs of the current directory, -1 before the first
	left  map[string]tree.ID // names in it that the output has not listed yet
	below []tree.ID          // directories that the output has listed
}

// begin ends the current directory and continues with directory n.
func (l *listing) begin(n int) error {
	for l.at < n {
		if err := l.end(); err != nil {
			return err
		}
		if l.at++; l.at == len(l.dirs) {
			return nil
		}
		l.left = map[string]tree.ID{}
		for name, id := range l.tree.Children(l.dirs[l.at]) {
			l.left[name] = id
		}
	}
	return nil
}

// end collects the names of the current directory that are not on the disk.
// Only devices and fifos may be missing, because the stager leaves them out.
func (l *listing) end() error {
	if len(l.left) == 0 {
		return nil
	}
	dir := l.dirs[l.at]
	for child, id := range l.tree.Children(dir) { // in the order of the tree, unlike left
		if _, ok := l.left[child]; !ok {
			continue
		}
		switch l.tree.Type(id) {
		case tree.CharDevice, tree.BlockDevice, tree.Fifo:
			l.special = append(l.special, entry{dir: l.inodes[dir], name: child, id: id})
		default:
			return fmt.Errorf("%s %q is missing on the disk", l.tree.Type(id), child)
		}
	}
	return nil
}

var errNotListed = errors.New("not an entry of a directory")

// line parses one line of the listing of directory n:
// /inode/mode/uid/gid/name/size/, where the size of a directory is empty. An
// empty line follows the entries.
func (l *listing) line(n int, text string) error {
	if err := l.begin(n); err != nil {
		return err
	}
	if text == "" {
		return nil
	}
	const fields, inodeField, nameField = 8, 1, 5
	f := strings.Split(text, "/")
	if len(f) != fields || f[0] != "" {
		return fmt.Errorf("%w: %w", errNotListed, toolError(text))
	}
	inode, err := strconv.ParseUint(f[inodeField], 10, 32)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotListed, toolError(text))
	}
	return l.entry(f[nameField], uint32(inode))
}

func (l *listing) entry(child string, inode uint32) error {
	dir := l.dirs[l.at]
	if inode == 0 || child == "." || child == ".." { // inode 0 marks an unused entry
		return nil
	}
	id, ok := l.left[child]
	if !ok {
		if dir == tree.Root && child == lostFound {
			return nil
		}
		return fmt.Errorf("%q is on the disk and not in the tree", child)
	}
	delete(l.left, child)
	if l.tree.Type(id) == tree.Directory {
		l.below = append(l.below, id)
	}
	if l.tree.Type(id) != tree.Regular {
		l.assign(entry{dir: l.inodes[dir], name: child, id: id}, inode)
		return nil
	}
	if known := l.inodes[id]; known != 0 && known != inode {
		return fmt.Errorf("%q has inode %d on the disk, its other names have inode %d", child, inode, known)
	}
	l.inodes[id] = inode
	return nil
}
