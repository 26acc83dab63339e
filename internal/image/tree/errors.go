package tree

import (
	"errors"
	"fmt"
)

// The reasons for which an entry is refused because of its path. Those that
// --paths=scoped lifts say so in their text.
var (
	ErrAbsoluteName   = errors.New("name is absolute (--paths=scoped takes it as a path inside the image)")
	ErrDotDot         = errors.New("name contains .. (--paths=scoped resolves it inside the image)")
	ErrUnsafeSymlink  = errors.New("unsafe symlink: the target climbs above the root (--paths=scoped accepts it)")
	ErrSymlinkParent  = errors.New("path passes through a symlink (--paths=scoped follows it inside the image)")
	ErrSymlinkLoop    = errors.New("path passes through too many symlinks")
	ErrNotDirectory   = errors.New("path passes through something that is not a directory")
	ErrReservedName   = errors.New("name is reserved for whiteouts")
	ErrBadName        = errors.New("not a usable name")
	ErrRootType       = errors.New("the root can only be a directory")
	ErrLinkMissing    = errors.New("hard link target does not exist")
	ErrLinkDirectory  = errors.New("hard link target is a directory")
	ErrBadType        = errors.New("entry type is unknown")
	errOutsideOfLayer = errors.New("entry added before the first layer")
)

// IsPathRefusal reports whether err is a refusal that --paths=scoped lifts.
func IsPathRefusal(err error) bool {
	for _, e := range []error{ErrAbsoluteName, ErrDotDot, ErrUnsafeSymlink, ErrSymlinkParent} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// An EntryError says which entry of a layer was refused and why.
type EntryError struct {
	Name string // as in the tar header
	Err  error
}

func (e *EntryError) Error() string { return fmt.Sprintf("entry %s: %v", quoteName(e.Name), e.Err) }

func (e *EntryError) Unwrap() error { return e.Err }

// quoteName keeps a message readable when a hostile name is long.
func quoteName(name string) string {
	const limit = 200
	if len(name) > limit {
		return fmt.Sprintf("%q… (%d bytes)", name[:limit], len(name))
	}
	return fmt.Sprintf("%q", name)
}

// A LimitError says which limit an image exceeds, and which option raises it.
type LimitError struct {
	What   string // what is limited, such as "inodes"
	Limit  int64
	Option string // command line flag or configuration key, "" when the limit is fixed
}

func (e *LimitError) Error() string {
	if e.Option == "" {
		return fmt.Sprintf("more than %d %s", e.Limit, e.What)
	}
	return fmt.Sprintf("more than %d %s (limit set by %s)", e.Limit, e.What, e.Option)
}
