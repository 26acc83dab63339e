package tree

import (
	"fmt"
	"slices"
	"strings"
)

// isForeign reports whether an extended attribute has a name in no namespace that
// a Linux file system keeps for images (xattr(7)): com.apple.provenance of
// macOS, for example. The kernel refuses to set it on every file system.
func isForeign(name string) bool {
	for _, namespace := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, namespace) {
			return false
		}
	}
	return name != "system.posix_acl_access" && name != "system.posix_acl_default"
}

// foreignXattrs counts the foreign attributes of a layer, which the tree does not
// get.
type foreignXattrs struct {
	count       int
	entry, name string // of the first
}

// strip returns the attributes of e without the foreign ones. It leaves e.Xattrs
// as it is, because the caller uses the memory again.
func (f *foreignXattrs) strip(e *Entry) []Xattr {
	if !slices.ContainsFunc(e.Xattrs, func(x Xattr) bool { return isForeign(x.Name) }) {
		return e.Xattrs
	}
	var kept []Xattr
	for _, x := range e.Xattrs {
		if !isForeign(x.Name) {
			kept = append(kept, x)
			continue
		}
		if f.count++; f.count == 1 {
			f.entry, f.name = e.Name, x.Name
		}
	}
	return kept
}

func (f *foreignXattrs) warning() string {
	return fmt.Sprintf("extended attributes in a namespace that Linux does not have: %d, left out; the first is %s of %s",
		f.count, quoteName(f.name), quoteName(f.entry))
}
