package tree

import (
	"errors"
	"fmt"
)

// The reasons why a Merger refuses an entry because of its path. If another
// --paths accepts the path, the message names it.
var (
	ErrAbsoluteName   = errors.New("name is absolute (--paths=rooted, the default, takes it as a path inside the image)")
	ErrDotDot         = errors.New("name contains .. (--paths=scoped resolves it inside the image)")
	ErrUnsafeSymlink  = errors.New("unsafe symlink: the target climbs above the root (--paths=scoped accepts it)")
	ErrSymlinkParent  = errors.New("path passes through a symlink (--paths=scoped follows it inside the image)")
	ErrSymlinkLoop    = errors.New("path passes through too many symlinks")
	ErrNotDirectory   = errors.New("path passes through something that is not a directory")
	ErrReservedName   = errors.New("name is reserved for whiteouts")
	ErrBadName        = errors.New("name is empty or contains a NUL byte")
	ErrRootType       = errors.New("the root can only be a directory")
	ErrLinkMissing    = errors.New("hard link target does not exist")
	ErrLinkDirectory  = errors.New("hard link target is a directory")
	ErrBadType        = errors.New("entry type is unknown")
	errOutsideOfLayer = errors.New("entry added before the first layer")
)

// IsPathRefusal reports whether err is for an entry that --paths=scoped
// accepts.
func IsPathRefusal(err error) bool {
	for _, e := range []error{ErrAbsoluteName, ErrDotDot, ErrUnsafeSymlink, ErrSymlinkParent} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// An EntryError is an error in one entry of a layer.
type EntryError struct {
	Name string // as in the tar header
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %s: %v", quoteName(e.Name), e.Err) }

func (e *EntryError) Unwrap() error { return e.Err }

// quoteName quotes a name for a message. It shortens long names, which hostile
// images have.
func quoteName(name string) string {
	const limit = 200
	if len(name) > limit {
		return fmt.Sprintf("%q… (%d bytes)", name[:limit], len(name))
	}
	return fmt.Sprintf("%q", name)
}

// A LimitError is the error for an image that exceeds a limit.
type LimitError struct {
	What   string // limited quantity, such as "inodes"
	Limit  int64
	Option string // command line flag or configuration key that raises the limit, "" if it is fixed
}

func (e *LimitError) Error() string {
	if e.Option == "" {
		return fmt.Sprintf("more than %d %s", e.Limit, e.What)
	}
	return fmt.Sprintf("more than %d %s (limit set by %s)", e.Limit, e.What, e.Option)
}
