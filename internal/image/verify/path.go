package verify

import (
	"errors"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/image/tree"
)

var (
	errAbsolute  = errors.New("name is absolute")
	errDotDot    = errors.New("name contains a parent directory")
	errSymlink   = errors.New("path passes through a symlink")
	errLoop      = errors.New("path passes through too many symlinks")
	errNotFolder = errors.New("path passes through something that is not a directory")
)

// Limits of linux/limits.h.
const (
	maxPath = 4096
	maxName = 255
	maxHops = 40 // MAXSYMLINKS of linux/namei.h
)

// split gives the components of a path, without empty ones and ".". Only
// scoped mode lets ".." through.
func (r *replay) split(path string) ([]string, error) {
	if path == "" || len(path) > maxPath || strings.ContainsRune(path, 0) {
		return nil, errBadName
	}
	if !r.scoped && path[0] == '/' {
		return nil, errAbsolute
	}
	parts := components(path)
	for _, p := range parts {
		if len(p) > maxName {
			return nil, errBadName
		}
		if p == ".." && !r.scoped {
			return nil, errDotDot
		}
	}
	return parts, nil
}

func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(p string) bool { return p == "" || p == "." })
}

// descend finds the directory that parts lead to. What is missing is made
// when create is set; otherwise the result is nil. A symlink on the way is an
// error, or in scoped mode is followed as in a chroot.
func (r *replay) descend(parts []string, create bool) (*node, error) {
	trail := []*node{r.root}
	for hops := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		if part == ".." {
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		if strings.HasPrefix(part, whiteout) {
			return nil, errReserved
		}
		dir := trail[len(trail)-1]
		n := dir.names[part]
		if n == nil {
			if !create {
				return nil, nil
			}
			if err := r.put(dir, part, &node{facts: r.implied(), names: map[string]*name{}}); err != nil {
				return nil, err
			}
			n = dir.names[part]
		}
		switch n.node.typ {
		case tree.Directory:
			trail = append(trail, n.node)
		case tree.Symlink:
			if hops++; !r.scoped {
				return nil, errSymlink
			} else if hops > maxHops {
				return nil, errLoop
			}
			if strings.HasPrefix(n.node.target, "/") {
				trail = trail[:1]
			}
			parts = append(components(n.node.target), parts...)
		default:
			return nil, errNotFolder
		}
	}
	return trail[len(trail)-1], nil
}

// checkTarget refuses a symlink in a directory of the given depth whose
// relative target climbs above the root.
func (r *replay) checkTarget(target string, depth int) error {
	if target == "" || len(target) >= maxPath || strings.ContainsRune(target, 0) {
		return errBadName
	}
	if r.scoped || target[0] == '/' {
		return nil
	}
	for _, p := range components(target) {
		if p == ".." {
			depth--
		} else {
			depth++
		}
		if depth < 0 {
			return errUnsafe
		}
	}
	return nil
}
