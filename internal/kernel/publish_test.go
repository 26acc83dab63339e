package kernel

import (
	"strings"
	"testing"
)

// TestManifestSizeLimit checks that writeManifest refuses a manifest that List
// would not read.
func TestManifestSizeLimit(t *testing.T) {
	k := &Kernel{dir: t.TempDir(), Manifest: Manifest{Warnings: []string{strings.Repeat("w", maxManifest)}}}
	if err := k.writeManifest(); err == nil {
		t.Error("a manifest was written that is not read")
	}
}

// TestFailedPublishKeepsNames publishes more names than fit into a manifest: the
// other kernel must keep its name.
func TestFailedPublishKeepsNames(t *testing.T) {
	s := openStore(t)
	a, b := addKernel(t, s, "1", "x"), addKernel(t, s, "2", "y")
	again := Builder{*b}
	again.Names = []string{"x", strings.Repeat("n", maxManifest)}
	if _, _, err := s.Publish(t.Context(), &again, false); err == nil {
		t.Fatal("a manifest was written that is not read")
	}
	if k, err := s.Find("x"); err != nil || k.ID != a.ID {
		t.Errorf("x is now of %v, %v", k, err)
	}
}
