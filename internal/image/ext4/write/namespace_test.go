package write

import (
	"strings"
	"testing"
)

// TestUnknownNamespace checks names that the merge leaves out before a disk is planned.
func TestUnknownNamespace(t *testing.T) {
	for _, name := range []string{"system.nfs4_acl", "com.apple.provenance", "user", ""} {
		if _, _, err := splitName(name); err == nil || !strings.Contains(err.Error(), "namespace") {
			t.Errorf("%q: %v, want an error about the namespace", name, err)
		}
	}
}
