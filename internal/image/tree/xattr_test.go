package tree

import (
	"slices"
	"strings"
	"testing"
)

// TestF8ForeignAttributesAreLeftOut checks that a tree does not get the attributes
// that no Linux file system has, and that a warning for each layer counts them.
func TestF8ForeignAttributesAreLeftOut(t *testing.T) {
	m := NewMerger(Options{})
	add := func(name string, attributes ...string) {
		t.Helper()
		e := Entry{Name: name, Type: Fifo}
		for _, a := range attributes {
			e.Xattrs = append(e.Xattrs, Xattr{Name: a, Value: "value"})
		}
		before := slices.Clone(e.Xattrs)
		if err := m.Add(&e); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(e.Xattrs, before) {
			t.Errorf("the attributes of the entry became %v", e.Xattrs)
		}
	}
	mustLayer := func() {
		t.Helper()
		if err := m.NextLayer(); err != nil {
			t.Fatal(err)
		}
	}
	mustLayer()
	add("a", "com.apple.provenance", "security.capability", "system.data", "user", "user.a")
	add("b", "com.apple.quarantine\n")
	add("c", "trusted.overlay.opaque", "system.posix_acl_access", "system.posix_acl_default")
	if got := m.LayerWarnings(); len(got) != 1 || !strings.HasPrefix(got[0], "extended attributes in a namespace that Linux does not have: 4,") ||
		!strings.HasSuffix(got[0], `the first is "com.apple.provenance" of "a"`) {
		t.Errorf("warnings %q", got)
	}
	mustLayer()
	add("/d", "user.d")
	if got := m.LayerWarnings(); len(got) != 1 || strings.Contains(got[0], "namespace") {
		t.Errorf("warnings of the second layer %q", got)
	}
	mustLayer()
	add("e", "com.apple.a")
	if got := m.LayerWarnings(); len(got) != 1 || !strings.Contains(got[0], ": 1,") {
		t.Errorf("warnings of the third layer %q", got)
	}
	want := map[string]string{
		"a": "security.capability user.a", "b": "", "c": "trusted.overlay.opaque system.posix_acl_access system.posix_acl_default", "d": "user.d", "e": "",
	}
	tree := m.Tree()
	for path, id := range tree.Walk() {
		var names []string
		for _, x := range tree.Inode(id).Xattrs {
			names = append(names, x.Name)
		}
		if got := strings.Join(names, " "); got != want[path] {
			t.Errorf("%s has %q, want %q", path, got, want[path])
		}
	}
}
