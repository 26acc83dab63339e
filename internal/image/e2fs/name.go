package e2fs

import (
	"errors"
	"fmt"

	"github.com/banger-vm/banger/internal/image/tree"
)

// ErrUnsafeName is the refusal of a name that a debugfs command cannot carry.
// The native builder has no such limit.
var ErrUnsafeName = errors.New("debugfs cannot take this name (the native builder can)")

// isSafe reports whether debugfs reads s in quotes as it stands. Its lines
// end at a newline or carriage return, and within quotes a quote is the only
// character with a meaning (ss_parse.c of e2fsprogs). Other control
// characters are not trusted to come back unchanged in its listings.
func isSafe(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f || c == '"' {
			return false
		}
	}
	return true
}

// quote makes s one word of a debugfs command.
func quote(s string) (string, error) {
	if !isSafe(s) {
		return "", fmt.Errorf("name %q: %w", s, ErrUnsafeName)
	}
	return `"` + s + `"`, nil
}

// checkNames refuses a tree with a name that no debugfs command can carry.
func checkNames(t *tree.Tree) error {
	for path := range t.Walk() {
		if !isSafe(path) {
			return fmt.Errorf("path %q: %w", path, ErrUnsafeName)
		}
	}
	return nil
}
