package e2fs

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/image/tree"
)

// ErrUnsafeName is the error for a name that a debugfs command cannot contain.
// The native builder has no such limit.
var ErrUnsafeName = errors.New("debugfs cannot process a name with a quote or a control character (--builder=native can)")

// isSafe reports whether debugfs reads s in quotes unchanged. A line of
// debugfs ends at a newline or carriage return, and the quote is the only
// special character within quotes (ss_parse.c of e2fsprogs). isSafe also
// returns false for other control characters, because debugfs may not list
// them unchanged.
func isSafe(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f || c == '"' {
			return false
		}
	}
	return true
}

// quote returns s as one word of a debugfs command.
func quote(s string) (string, error) {
	if !isSafe(s) {
		return "", fmt.Errorf("name %q: %w", s, ErrUnsafeName)
	}
	return `"` + s + `"`, nil
}

// checkNames returns an error if a debugfs command cannot contain a name of
// the tree.
func checkNames(t *tree.Tree) error {
	for path := range t.Walk() {
		if !isSafe(path) {
			return fmt.Errorf("path %q: %w", path, ErrUnsafeName)
		}
	}
	return nil
}
