package check

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// directories checks all directories that can be reached from the root, and then
// reports the others.
func (c *checker) directories(ctx context.Context) error {
	queue := []uint32{format.RootInode}
	root := c.state(format.RootInode)
	if root.typ != tree.Directory {
		c.problem("inode %d: the root is not a directory that can be read", format.RootInode)
		return nil
	}
	root.reached = true
	for len(queue) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		dir := queue[0]
		queue = append(queue[1:], c.directory(dir)...)
	}
	if root.dotdot != format.RootInode {
		c.problem("directory inode %d: .. leads to inode %d", format.RootInode, root.dotdot)
	}
	for _, n := range c.dirs {
		if !c.state(n).reached {
			c.problem("directory inode %d: not to be reached from the root", n)
		}
	}
	return nil
}

// directory checks the entries of directory n and returns the directories among
// them that no other entry has led to.
func (c *checker) directory(n uint32) (below []uint32) {
	in, err := c.fs.Inode(n)
	if err != nil {
		return nil // already reported
	}
	names := map[string]bool{}
	position := 0
	err = c.fs.ReadDir(in, func(e read.DirEntry) error {
		if names[e.Name] {
			c.problem("directory inode %d: %q twice", n, e.Name)
			return nil
		}
		names[e.Name] = true
		position++
		if c.entry(n, e, position) {
			below = append(below, e.Inode)
		}
		return nil
	})
	if err != nil {
		c.problem("%v", err)
		return below
	}
	if !names["."] || !names[".."] {
		c.problem("directory inode %d: no . or no ..", n)
	}
	if in.Flags&format.FlagIndex != 0 {
		if err := c.hashTree(in); err != nil {
			c.problem("%v", err)
		}
	}
	return below
}

// entry checks an entry of directory dir. The first entry has position 1. It
// reports whether the entry leads to a directory that no entry has led to before.
func (c *checker) entry(dir uint32, e read.DirEntry, position int) bool {
	s := c.state(e.Inode)
	switch {
	case !s.inUse:
		c.problem("directory inode %d: %q leads to inode %d, which is not in use", dir, e.Name, e.Inode)
		return false
	case s.typ != e.Type:
		c.problem("directory inode %d: %q is a %v, but inode %d is a %v", dir, e.Name, e.Type, e.Inode, s.typ)
	}
	s.names++
	switch {
	case (e.Name == ".") != (position == 1) || (e.Name == "..") != (position == 2):
		c.problem("directory inode %d: %q as entry %d", dir, e.Name, position)
	case position == 1 && e.Inode != dir:
		c.problem("directory inode %d: . leads to inode %d", dir, e.Inode)
	case position == 2:
		// The entry that led to this directory has set dotdot. The root has none.
		if own := c.state(dir); own.dotdot == 0 {
			own.dotdot = e.Inode
		} else if own.dotdot != e.Inode {
			c.problem("directory inode %d: .. leads to inode %d, but inode %d is above it", dir, e.Inode, own.dotdot)
		}
	case position > 2 && (s.isValue || e.Inode < c.sb.FirstInode):
		c.problem("directory inode %d: %q leads to inode %d, which can have no name", dir, e.Name, e.Inode)
	case position > 2 && s.typ == tree.Directory:
		if s.reached {
			c.problem("directory inode %d: second name %q in directory inode %d", e.Inode, e.Name, dir)
			return false
		}
		s.reached, s.dotdot = true, dir
		return true
	}
	return false
}

// hashTree returns an error if a block with names is not a leaf of the
// directory's hash tree, or if a name is not in the leaf of its hash, where a
// lookup searches for it.
func (c *checker) hashTree(in *read.Inode) error {
	t, err := c.fs.OpenIndex(in)
	if err != nil {
		return err
	}
	found := make([]bool, t.Blocks())
	err = t.Leaves(func(n int, low, high uint32) error {
		if found[n] {
			return treeError(in, n, "twice")
		}
		found[n] = true
		hasNames, err := t.Names(n, func(e read.DirEntry) error {
			hash, err := t.Hash(e.Name)
			if err != nil {
				return blockError(in, n, err)
			}
			if hash < low || hash > high {
				return treeError(in, n, "%q with hash %#x, want %#x to %#x", e.Name, hash, low, high)
			}
			return nil
		})
		if err == nil && !hasNames {
			err = treeError(in, n, "a node in place of names")
		}
		return err
	})
	if err != nil {
		return err
	}
	return lostNames(in, t, found)
}

// lostNames returns an error if a block that is not in found, the leaves of the
// hash tree, holds names.
func lostNames(in *read.Inode, t *read.Index, found []bool) error {
	for n := 1; n < len(found); n++ {
		if found[n] {
			continue
		}
		_, err := t.Names(n, func(read.DirEntry) error { return treeError(in, n, "does not lead here") })
		if err != nil {
			return err
		}
	}
	return nil
}

func treeError(in *read.Inode, block int, reason string, args ...any) error {
	return blockError(in, block, fmt.Errorf("hash tree: "+reason, args...))
}

func blockError(in *read.Inode, block int, err error) error {
	return fmt.Errorf("ext4: directory inode %d: block %d: %w", in.Number, block, err)
}

// references compares the link count of every inode with the number of its
// names, and the reference counts of attribute blocks and value inodes with the
// numbers of their users.
func (c *checker) references() {
	orphanFile := le.Uint32(c.sb.Raw[0x280:]) // s_orphan_file_inum
	for g, states := range c.inodes {
		for i := range states {
			s := &states[i]
			n := uint32(g)*c.sb.InodesPerGroup + uint32(i) + 1
			switch {
			case !s.inUse, n < c.sb.FirstInode && n != format.RootInode, n == orphanFile, s.isValue:
			case s.typ == tree.Directory && s.links == 1 && s.names > format.MaxLinks:
			case s.names == 0:
				c.problem("inode %d: in use, but has no name", n)
			case s.links != s.names:
				c.problem("inode %d: %d links, counted %d", n, s.links, s.names)
			}
			if s.isValue {
				c.valueInode(n)
			}
		}
	}
	for _, block := range slices.Sorted(maps.Keys(c.xattrBlocks)) {
		users := c.xattrBlocks[block]
		data, err := c.fs.XattrBlock(block)
		if err == nil && le.Uint32(data[4:]) != users {
			c.problem("block %d: extended attributes of %d inodes, counted %d", block, le.Uint32(data[4:]), users)
		}
	}
}

// valueInode compares the reference count of an inode that holds the value of an
// attribute with the number of its users. The count is in i_ctime and i_version
// (ext4_xattr_inode_get_ref in linux/fs/ext4/xattr.c).
func (c *checker) valueInode(n uint32) {
	in, err := c.fs.Inode(n)
	if err != nil {
		return // already reported
	}
	count := uint64(le.Uint32(in.Raw()[0xc:]))<<32 | uint64(le.Uint32(in.Raw()[0x24:]))
	if users := c.valueInodes[n]; users != count {
		c.problem("inode %d: extended attribute of %d inodes, counted %d", n, count, users)
	}
}
