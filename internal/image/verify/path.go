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

// split returns the components of a path, without empty ones and ".". In strict
// mode it accepts no absolute path but the root, and ".." only in scoped mode.
func (r *replay) split(path string) ([]string, error) {
	if path == "" || len(path) > maxPath || strings.ContainsRune(path, 0) {
		return nil, errBadName
	}
	parts := components(path)
	if r.paths == tree.Strict && path[0] == '/' && len(parts) > 0 {
		return nil, errAbsolute
	}
	for _, p := range parts {
		if len(p) > maxName {
			return nil, errBadName
		}
		if p == ".." && r.paths != tree.Scoped {
			return nil, errDotDot
		}
	}
	return parts, nil
}

func components(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(p string) bool { return p == "" || p == "." })
}

// descend returns the directory at the path parts. If a directory is missing,
// descend makes it if create is set, and returns nil otherwise. In
// scoped mode descend follows a symlink on the path as in a chroot. In the
// other modes it is an error.
func (r *replay) descend(parts []string, create bool) (*node, error) {
	trail := []*node{r.root}
	for hops := 0; len(parts) > 0; {
		part := parts[0]
		parts = parts[1:]
		if part == ".." {
			trail = trail[:max(1, len(trail)-1)]
			continue
		}
		if strings.HasPrefix(part, whiteoutPrefix) {
			return nil, errReserved
		}
		dir := trail[len(trail)-1]
		n := dir.names[part]
		if n == nil {
			if !create {
				return nil, nil
			}
			if err := r.put(dir, part, &node{metadata: r.implied(), names: map[string]*name{}}); err != nil {
				return nil, err
			}
			n = dir.names[part]
		}
		switch n.node.typ {
		case tree.Directory:
			trail = append(trail, n.node)
		case tree.Symlink:
			if hops++; r.paths != tree.Scoped {
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

// checkTarget returns an error if the target of a symlink is not valid. Unless
// the mode is scoped, that includes a relative target that climbs above the root from
// a directory of the given depth.
func (r *replay) checkTarget(target string, depth int) error {
	if target == "" || len(target) >= maxPath || strings.ContainsRune(target, 0) {
		return errBadName
	}
	if r.paths == tree.Scoped || target[0] == '/' {
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
