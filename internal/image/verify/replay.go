package verify

import (
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

// facts are what an inode of the image must be like on the disk.
type facts struct {
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
	facts
}

// node is an inode of the expected tree.
type node struct {
	facts
	names map[string]*name // of a directory
	links int              // names of it in the tree
	swept int              // number of the last layer that hid what lower layers put in this directory
}

// name is a name in a directory, and the number of the layer that set it.
type name struct {
	node  *node
	layer int
}

// The reasons to refuse an entry. They say what product.md's F2 to F7 say.
var (
	errReserved  = errors.New("name is reserved for whiteouts")
	errBadName   = errors.New("not a usable name")
	errRoot      = errors.New("the root can only be a directory")
	errNoTarget  = errors.New("hard link target does not exist")
	errDirTarget = errors.New("hard link target is a directory")
	errUnsafe    = errors.New("unsafe symlink: the target climbs above the root")
	errTooMany   = errors.New("layers make too many inodes")
)

const (
	whiteout = ".wh."
	aufs     = ".wh..wh."
	opaque   = ".wh..wh..opq"
)

// replay is the tree that layers make, applied one after the other.
type replay struct {
	root    *node
	layer   int // number of the current layer, from 1
	created tree.Time
	scoped  bool
	left    int // inodes that may still be made
}

func newReplay(created tree.Time, scoped bool, maxInodes int) *replay {
	r := &replay{created: created, scoped: scoped, left: maxInodes}
	r.root = &node{facts: r.implied(), names: map[string]*name{}, links: 1}
	return r
}

func (r *replay) nextLayer() { r.layer++ }

// implied are the facts of a directory that no entry describes.
func (r *replay) implied() facts {
	return facts{typ: tree.Directory, mode: 0o755, mtime: r.created}
}

// apply carries out one entry of the current layer.
func (r *replay) apply(e *entry) error {
	parts, err := r.split(e.name)
	if err != nil || ignored(parts) {
		return err
	}
	if len(parts) == 0 || parts[len(parts)-1] == ".." {
		return r.describe(parts, e)
	}
	parents, leaf := parts[:len(parts)-1], parts[len(parts)-1]
	if hidden, ok := strings.CutPrefix(leaf, whiteout); ok {
		return r.hideBelow(parents, leaf, hidden)
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

// describe sets the facts of a directory that is named by its own path, such
// as the root by ".".
func (r *replay) describe(parts []string, e *entry) error {
	if e.typ != tree.Directory {
		return errRoot
	}
	dir, err := r.descend(parts, true)
	if err == nil {
		dir.facts = e.facts
	}
	return err
}

// inode gives what the name of e will stand for: a new inode, or for a hard
// link the one that is there already.
func (r *replay) inode(e *entry, depth int) (*node, error) {
	switch e.typ {
	case tree.HardLink:
		return r.linked(e.link)
	case tree.Symlink:
		if err := r.checkTarget(e.target, depth); err != nil {
			return nil, err
		}
	case tree.Directory:
		return &node{facts: e.facts, names: map[string]*name{}}, nil
	case tree.Regular, tree.CharDevice, tree.BlockDevice, tree.Fifo:
	default:
		return nil, fmt.Errorf("entry type %d is unknown", e.typ)
	}
	return &node{facts: e.facts}, nil
}

// put makes leaf in dir stand for n. A directory on a directory takes its
// facts and keeps what is in it.
func (r *replay) put(dir *node, leaf string, n *node) error {
	old := dir.names[leaf]
	if old != nil && old.node.typ == tree.Directory && n.typ == tree.Directory {
		old.node.facts = n.facts
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
		drop(old.node)
	}
	dir.names[leaf] = &name{node: n, layer: r.layer}
	return nil
}

// drop takes one name from n, and from all that is in it if it is a directory.
func drop(n *node) {
	n.links--
	for _, child := range n.names {
		drop(child.node)
	}
}

// linked finds the inode that a hard link shares. An absolute target means
// the image's root, whatever the mode.
func (r *replay) linked(target string) (*node, error) {
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

// hideBelow carries out a whiteout or an opaque marker.
func (r *replay) hideBelow(parents []string, leaf, hidden string) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return errReserved
	}
	dir, err := r.descend(parents, false)
	switch {
	case err != nil || dir == nil:
		return err
	case leaf == opaque:
		r.sweep(dir)
	case dir.names[hidden] != nil:
		r.hide(dir, hidden)
	}
	return nil
}

// hide removes what lower layers put at a name and below it. A directory of
// theirs that the current layer has put something into stays, but its
// metadata is gone: it is implied from now on.
func (r *replay) hide(dir *node, leaf string) {
	n := dir.names[leaf]
	r.sweep(n.node)
	switch {
	case n.layer == r.layer:
	case len(n.node.names) > 0:
		n.node.facts = r.implied()
		n.layer = r.layer
	default:
		drop(n.node)
		delete(dir.names, leaf)
	}
}

// sweep hides everything in a directory, once a layer: a second time finds
// nothing, as only the current layer adds to it.
func (r *replay) sweep(dir *node) {
	if dir.swept == r.layer {
		return
	}
	dir.swept = r.layer
	for leaf := range dir.names {
		r.hide(dir, leaf)
	}
}

// ignored reports whether a path is bookkeeping of AUFS.
func ignored(parts []string) bool {
	for _, p := range parts {
		if strings.HasPrefix(p, aufs) && p != opaque {
			return true
		}
	}
	return false
}
