package tree

import "strings"

// Whiteouts, as the OCI image specification has them ("Representing
// Changes", layer.md): a marker hides what lower layers put at a path, never
// what its own layer puts there, wherever in the layer the marker stands.
const (
	whiteoutPrefix = ".wh."
	reservedPrefix = ".wh..wh." // AUFS's own bookkeeping
	opaqueSuffix   = ".wh..opq" // what follows the prefix in an opaque marker
	opaqueName     = whiteoutPrefix + opaqueSuffix
)

// isIgnored reports whether path is, or lies in, something that AUFS kept for
// itself, such as ".wh..wh.plnk/12.34".
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

// addWhiteout carries out the marker ".wh." + hidden in the directory at
// dirPath. A directory that does not exist has nothing to hide.
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
	if _, d := m.find(dir, hidden); d != 0 && m.t.dentries.at(d).inode != 0 {
		m.hide(d)
	}
	return nil
}

// hide removes what lower layers put at d and below it. What the current
// layer put there stays; a lower layer's directory that stays because of it
// is as if it were implied.
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

// hideChildren hides what is in dir and reports whether anything stays. It
// marks dir, since a second time in one layer would find nothing: without
// the mark a layer of many markers would cost the square of its length.
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
