package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// metadata is the expected metadata of an inode on the disk, with the hash of
// its content.
type metadata struct {
	typ          tree.Type
	mode         uint16
	uid, gid     uint32
	mtime        tree.Time
	major, minor uint32
	size         int64    // of a regular file, bytes
	sum          [32]byte // SHA-256 of a regular file's content
	target       string   // of a symlink
	xattrs       []tree.Xattr
}

// entry is one entry of a layer.
type entry struct {
	name string // as in the tar header
	link string // target of a hard link, as in the header
	metadata
}

// node is an inode of the expected tree.
type node struct {
	metadata
	names    map[string]*name // of a directory
	links    int              // number of names in the tree
	hiddenBy int              // number of the last layer that hid the children of this directory
}

// name is a name in a directory.
type name struct {
	node  *node
	layer int // number of the last layer that set the name
}

// The reasons to refuse an entry: F2 to F7 of docs/contract.md.
var (
	errReserved  = errors.New("name is reserved for whiteouts")
	errBadName   = errors.New("name is empty, too long or contains a NUL byte")
	errRoot      = errors.New("the root can only be a directory")
	errNoTarget  = errors.New("hard link target does not exist")
	errDirTarget = errors.New("hard link target is a directory")
	errUnsafe    = errors.New("unsafe symlink: the target climbs above the root")
	errTooMany   = errors.New("layers make too many inodes")
)

const (
	whiteoutPrefix = ".wh."
	aufsPrefix     = ".wh..wh."
	opaqueName     = ".wh..wh..opq"
)

// replay applies layers one after the other to a tree.
type replay struct {
	root    *node
	layer   int // number of the current layer, from 1
	created tree.Time
	paths   tree.Paths
	left    int // number of inodes that the layers may still make
}

func newReplay(created tree.Time, paths tree.Paths, maxInodes int) *replay {
	r := &replay{created: created, paths: paths, left: maxInodes}
	r.root = &node{metadata: r.implied(), names: map[string]*name{}, links: 1}
	return r
}

func (r *replay) nextLayer() { r.layer++ }

// implied returns the metadata of a directory that no entry describes.
func (r *replay) implied() metadata {
	return metadata{typ: tree.Directory, mode: 0o755, mtime: r.created}
}

// apply applies one entry of the current layer.
func (r *replay) apply(e *entry) error {
	parts, err := r.split(e.name)
	if err != nil || ignored(parts) {
		return err
	}
	if len(parts) == 0 || parts[len(parts)-1] == ".." {
		return r.setDirectory(parts, e)
	}
	parents, leaf := parts[:len(parts)-1], parts[len(parts)-1]
	if hidden, ok := strings.CutPrefix(leaf, whiteoutPrefix); ok {
		return r.applyWhiteout(parents, leaf, hidden)
	}
	n, err := r.inode(e, len(parents))
	if err != nil {
		return err
	}
	dir, err := r.descend(parents, true)
	if err != nil {
		return err
	}
	return r.put(dir, leaf, n)
}

// setDirectory sets the metadata of a directory whose path does not end in its
// name, such as "." for the root.
func (r *replay) setDirectory(parts []string, e *entry) error {
	if e.typ != tree.Directory {
		return errRoot
	}
	dir, err := r.descend(parts, true)
	if err == nil {
		dir.metadata = e.metadata
	}
	return err
}

// inode returns the inode for the name of e: the existing one if e is a hard
// link, and a new one otherwise.
func (r *replay) inode(e *entry, depth int) (*node, error) {
	switch e.typ {
	case tree.HardLink:
		return r.linkTarget(e.link)
	case tree.Symlink:
		if err := r.checkTarget(e.target, depth); err != nil {
			return nil, err
		}
	case tree.Directory:
		return &node{metadata: e.metadata, names: map[string]*name{}}, nil
	case tree.Regular, tree.CharDevice, tree.BlockDevice, tree.Fifo:
	default:
		return nil, fmt.Errorf("entry type %d is unknown", e.typ)
	}
	return &node{metadata: e.metadata}, nil
}

// put makes leaf in dir a name of n. If both the old inode of the name and n
// are directories, the old one gets the metadata of n and keeps its children.
func (r *replay) put(dir *node, leaf string, n *node) error {
	old := dir.names[leaf]
	if old != nil && old.node.typ == tree.Directory && n.typ == tree.Directory {
		old.node.metadata = n.metadata
		old.layer = r.layer
		return nil
	}
	if n.links == 0 {
		if r.left--; r.left < 0 {
			return errTooMany
		}
	}
	n.links++
	if old != nil {
		unlink(old.node)
	}
	dir.names[leaf] = &name{node: n, layer: r.layer}
	return nil
}

// unlink removes one name of n, and all names below n if it is a directory.
func unlink(n *node) {
	n.links--
	for _, child := range n.names {
		unlink(child.node)
	}
}

// linkTarget returns the inode that the target of a hard link names. An
// absolute target starts at the image's root in all modes.
func (r *replay) linkTarget(target string) (*node, error) {
	parts, err := r.split(strings.TrimLeft(target, "/"))
	if err != nil {
		return nil, fmt.Errorf("hard link target %q: %w", target, err)
	}
	if len(parts) == 0 || parts[len(parts)-1] == ".." {
		return nil, errDirTarget
	}
	dir, err := r.descend(parts[:len(parts)-1], false)
	if err != nil {
		return nil, fmt.Errorf("hard link target %q: %w", target, err)
	}
	if dir == nil || dir.names[parts[len(parts)-1]] == nil {
		return nil, fmt.Errorf("%q: %w", target, errNoTarget)
	}
	n := dir.names[parts[len(parts)-1]].node
	if n.typ == tree.Directory {
		return nil, fmt.Errorf("%q: %w", target, errDirTarget)
	}
	return n, nil
}

// applyWhiteout applies a whiteout or an opaque marker. It does nothing if the
// directory or the name is missing.
func (r *replay) applyWhiteout(parents []string, leaf, hidden string) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return errReserved
	}
	dir, err := r.descend(parents, false)
	switch {
	case err != nil || dir == nil:
		return err
	case leaf == opaqueName:
		r.hideChildren(dir)
	case dir.names[hidden] != nil:
		r.hide(dir, hidden)
	}
	return nil
}

// hide removes the entries of lower layers at a name and below it. It keeps a
// directory of a lower layer if the current layer has added a child to it, but
// gives it the metadata of an implied directory.
func (r *replay) hide(dir *node, leaf string) {
	n := dir.names[leaf]
	r.hideChildren(n.node)
	switch {
	case n.layer == r.layer:
	case len(n.node.names) > 0:
		n.node.metadata = r.implied()
		n.layer = r.layer
	default:
		unlink(n.node)
		delete(dir.names, leaf)
	}
}

// hideChildren hides the children of a directory. A second call for the same
// layer does nothing, because only the current layer has added children since.
func (r *replay) hideChildren(dir *node) {
	if dir.hiddenBy == r.layer {
		return
	}
	dir.hiddenBy = r.layer
	for leaf := range dir.names {
		r.hide(dir, leaf)
	}
}

// ignored reports whether a path is part of AUFS's own metadata.
func ignored(parts []string) bool {
	for _, p := range parts {
		if strings.HasPrefix(p, aufsPrefix) && p != opaqueName {
			return true
		}
	}
	return false
}
