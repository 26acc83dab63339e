package e2fs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// findInodes learns which inode of the disk mkfs.ext4 gave to each inode of
// the tree. It lists directories by number, all of one depth at a time, so
// that no path has to fit a command.
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

// list reads directories whose inodes are known and returns the directories
// in them.
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

// listing takes in the output of ls -p for some directories.
type listing struct {
	*restorer
	dirs  []tree.ID
	at    int                // directory in dirs that is being listed, -1 before the first
	left  map[string]tree.ID // names in it that have not come up
	below []tree.ID          // directories found
}

// begin ends the directory at hand and goes on to number n.
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

// end collects what is not on the disk: that may only be what was not staged.
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

// line takes in one line: /inode/mode/uid/gid/name/size/, the size empty for
// a directory. After the entries comes an empty line.
func (l *listing) line(n int, said string) error {
	if err := l.begin(n); err != nil {
		return err
	}
	if said == "" {
		return nil
	}
	const fields, inodeField, nameField = 8, 1, 5
	f := strings.Split(said, "/")
	if len(f) != fields || f[0] != "" {
		return fmt.Errorf("%w: %w", errNotListed, toolError(said))
	}
	inode, err := strconv.ParseUint(f[inodeField], 10, 32)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotListed, toolError(said))
	}
	return l.entry(f[nameField], uint32(inode))
}

func (l *listing) entry(child string, inode uint32) error {
	dir := l.dirs[l.at]
	if inode == 0 || child == "." || child == ".." { // an entry of 0 is unused
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
		l.place(entry{dir: l.inodes[dir], name: child, id: id}, inode)
		return nil
	}
	if known := l.inodes[id]; known != 0 && known != inode {
		return fmt.Errorf("%q is not the hard link it should be", child)
	}
	l.inodes[id] = inode
	return nil
}
