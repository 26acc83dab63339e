package source

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

func TestExportRoundTrip(t *testing.T) {
	s := openStore(t)
	k := pullDeb(t, s, "mine")
	for format, prefix := range map[string]string{FormatTar: "bundle:", FormatOCI: "oci-archive:"} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "export")
			if err := Export(t.Context(), k, path, format); err != nil {
				t.Fatal(err)
			}
			other := openStore(t)
			again := pull(t, other, prefix+path, "", Options{})
			if again.ID != k.ID || again.Origin != k.Origin || again.Files[kernel.ModulesFile] != k.Files[kernel.ModulesFile] {
				t.Errorf("got %+v, want %+v", again.Manifest, k.Manifest)
			}
			second := filepath.Join(t.TempDir(), "export")
			if err := Export(t.Context(), again, second, format); err != nil {
				t.Fatal(err)
			}
			a, b := kerneltest.ReadFile(t, path), kerneltest.ReadFile(t, second)
			if format == FormatTar && !bytes.Equal(a, b) {
				t.Error("the second export has other bytes")
			}
		})
	}
	if err := Export(t.Context(), k, filepath.Join(t.TempDir(), "x"), "zip"); err == nil {
		t.Error("an unknown format was written")
	}
}

func TestExportOfDamagedModules(t *testing.T) {
	k := pullDeb(t, openStore(t), "")
	disk := kerneltest.ReadFile(t, k.ModulesDisk())
	changed := bytes.Replace(disk, []byte("kernel/fs/jbd2/jbd2.ko"), []byte("kernel/fs/jbd2/jbd3.ko"), 1)
	if bytes.Equal(disk, changed) {
		t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(k.ModulesDisk(), changed, 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "export")
	if err := Export(t.Context(), k, path, FormatTar); err == nil || !strings.Contains(err.Error(), "digest of its modules") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("a bundle was left")
	}
}
