package tree

import (
	"fmt"
	"slices"
	"strings"
)

// Paths is the rule for entries with unusual paths.
type Paths uint8

// The rules. All of them accept an entry for the root itself, such as "/" or
// "./", and an absolute target of a hard link.
const (
	// Rooted reads an absolute name as a path from the image's root. It
	// refuses names with .. and paths through symlinks.
	Rooted Paths = iota
	// Strict refuses absolute names too.
	Strict
	// Scoped accepts all of these paths, and resolves them inside the image
	// as in a chroot.
	Scoped
)

var pathsNames = []string{Rooted: "rooted", Strict: "strict", Scoped: "scoped"}

// String returns the name of p.
func (p Paths) String() string { return pathsNames[p] }

// ParsePaths returns the rule with the given name. "" is Rooted.
func ParsePaths(name string) (Paths, error) {
	if name == "" {
		return Rooted, nil
	}
	i := slices.Index(pathsNames, name)
	if i < 0 {
		return 0, fmt.Errorf("paths mode %q: want rooted, strict or scoped", name)
	}
	return Paths(i), nil
}

// isRoot reports whether name, which is absolute, is the root itself.
func isRoot(name string) bool {
	for i := range len(name) {
		// A dot stands alone: "..", "/.a" and "/a." are other names.
		if name[i] != '/' && (name[i] != '.' || name[i-1] != '/' || i+1 < len(name) && name[i+1] != '/') {
			return false
		}
	}
	return true
}

// fromRoot returns path, the cleaned name of e, without its leading slashes. A
// strict merge refuses an absolute name, unless it is the root.
func (m *Merger) fromRoot(path string, e *Entry) (string, error) {
	absolute := e.Name[0] == '/' && !isRoot(e.Name)
	if absolute && m.o.Paths == Strict {
		return "", ErrAbsoluteName
	}
	if m.o.Paths == Rooted && (absolute || e.Type == HardLink && strings.HasPrefix(e.Linkname, "/")) {
		m.rooted.add(e.Name)
	}
	return strings.TrimLeft(path, "/"), nil
}

// rootedNames counts the entries of a layer with an absolute name or hard link
// target, which a rooted merge reads from the image's root.
type rootedNames struct {
	count int
	first string // name of the first entry
}

func (r *rootedNames) add(name string) {
	if r.count++; r.count == 1 {
		r.first = name
	}
}

// LayerWarnings returns the warnings about the entries of the current layer.
func (m *Merger) LayerWarnings() []string {
	var out []string
	if m.rooted.count > 0 {
		out = append(out, fmt.Sprintf("entries with absolute names or hard link targets: %d, read from the image's root; the first is %s",
			m.rooted.count, quoteName(m.rooted.first)))
	}
	if m.foreign.count > 0 {
		out = append(out, m.foreign.warning())
	}
	return out
}
