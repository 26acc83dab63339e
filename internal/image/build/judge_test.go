package build

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/tree"
)

// attributes writes a tar with a file that has the given extended attributes, and
// returns its source.
func attributes(t *testing.T, list map[string]string) string {
	t.Helper()
	h := tar.Header{Name: "dir/file", Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: map[string]string{}}
	for name, value := range list {
		h.PAXRecords["SCHILY.xattr."+name] = value
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := errors.Join(w.WriteHeader(&h), w.Close()); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "attributes.tar")
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return "tar:" + path
}

// TestB4BuildersJudgeAttributesAlike checks that both builders refuse an image with
// an attribute that ext4 cannot hold, with the same words and before they write
// anything.
func TestB4BuildersJudgeAttributesAlike(t *testing.T) {
	many := map[string]string{}
	for i := range 5000 {
		many[fmt.Sprintf("user.attribute%d", i)] = "value"
	}
	for want, list := range map[string]map[string]string{
		"more extended attributes than an inode can have": many,
		`extended attribute "user.": bad name`:            {"user.": "x"},
		"not an access control list":                      {"system.posix_acl_access": "\x01\x00\x00\x00\x01\x00\x07\x00"},
	} {
		source := attributes(t, list)
		var texts []string
		for _, b := range []Builder{Native, E2fsprogs} {
			dir := t.TempDir()
			_, err := Convert(t.Context(), source, filepath.Join(dir, "disk"), Options{Builder: b, Pull: pull.Options{CacheDir: t.TempDir()}})
			if entry, ok := errors.AsType[*tree.EntryError](err); !ok || entry.Name != "dir/file" {
				t.Fatalf("%s, %s: %v, want an error about dir/file", b, want, err)
			}
			texts = append(texts, err.Error())
			if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
				t.Errorf("%s left %v, %v", b, left, err)
			}
		}
		if texts[0] != texts[1] || !strings.Contains(texts[0], want) {
			t.Errorf("errors %q, want %q in both", texts, want)
		}
	}
}

// TestF8ForeignAttributesOfBothBuilders checks that an attribute of another
// operating system is left out with the same warning, and that the disk is the
// image for verify.
func TestF8ForeignAttributesOfBothBuilders(t *testing.T) {
	source := attributes(t, map[string]string{"com.apple.provenance": "\x01\x02", "user.kept": "x", "security.capability": "\x01\x00\x00\x02" + strings.Repeat("\x00", 16)})
	var warnings [][]string
	for _, b := range []Builder{Native, E2fsprogs} {
		disk := filepath.Join(t.TempDir(), "disk")
		o := Options{Builder: b, Pull: pull.Options{CacheDir: t.TempDir()}}
		res, err := Convert(t.Context(), source, disk, o)
		if err != nil {
			t.Fatal(err)
		}
		warnings = append(warnings, res.Warnings)
		report, err := Verify(t.Context(), source, disk, o)
		if err != nil || len(report.Differences) > 0 {
			t.Errorf("%s: differences %v, %v", b, report, err)
		}
	}
	if len(warnings[0]) != 1 || !strings.Contains(warnings[0][0], `: 1, left out; the first is "com.apple.provenance" of "dir/file"`) ||
		!slices.Equal(warnings[0], warnings[1]) {
		t.Errorf("warnings %q", warnings)
	}
}
