package tree

import "strings"

// Names of whiteouts, from the OCI image specification ("Representing
// Changes", layer.md). A marker hides a path of the lower layers. It does not
// hide an entry of its own layer, before or after the marker.
const (
	whiteoutPrefix = ".wh."
	reservedPrefix = ".wh..wh." // AUFS's own metadata
	opaqueSuffix   = ".wh..opq" // rest of an opaque marker's name after the prefix
	opaqueName     = whiteoutPrefix + opaqueSuffix
)

// isIgnored reports whether path is part of AUFS's own metadata, such as
// ".wh..wh.plnk/12.34".
func isIgnored(path string) bool {
	if !strings.Contains(path, reservedPrefix) {
		return false
	}
	for part := range strings.SplitSeq(path, "/") {
		if strings.HasPrefix(part, reservedPrefix) && part != opaqueName {
			return true
		}
	}
	return false
}

// addWhiteout applies the marker ".wh." + hidden in the directory dirPath. It
// does nothing if the directory does not exist.
func (m *Merger) addWhiteout(dirPath, hidden string) error {
	if hidden == "" || hidden == "." || hidden == ".." {
		return ErrReservedName
	}
	dir, err := m.walk(dirPath, false)
	if err != nil || dir == 0 {
		return err
	}
	if hidden == opaqueSuffix {
		m.hideChildren(dir)
		return nil
	}
	if _, d := m.index.find(dir, hidden); d != 0 && m.t.dentries.at(d).inode != 0 {
		m.hide(d)
	}
	return nil
}

// hide removes the entries of lower layers at d and below it, and keeps those
// of the current layer. If a lower layer's directory remains because of them,
// hide gives it the metadata of an implied directory.
func (m *Merger) hide(d uint32) {
	e := m.t.dentries.at(d)
	own := e.layer == uint16(m.layer)
	kept := m.t.Type(e.inode) == Directory && m.hideChildren(e.inode)
	switch {
	case own:
	case kept:
		m.setImplied(m.t.nodes.at(uint32(e.inode)))
		e.layer = uint16(m.layer)
	default:
		m.detach(d)
	}
}

// hideChildren hides the children of dir and reports whether any remain. It
// records the current layer in dir, because a second call for that layer
// would hide nothing: without the record, a layer with many markers would
// take quadratic time.
func (m *Merger) hideChildren(dir ID) bool {
	n := m.t.nodes.at(uint32(dir))
	if n.layer != uint16(m.layer)+1 {
		n.layer = uint16(m.layer) + 1
		for c := uint32(n.data); c != 0; c = m.t.dentries.at(c).next {
			if m.t.dentries.at(c).inode != 0 {
				m.hide(c)
			}
		}
	}
	return n.size > 0
}
