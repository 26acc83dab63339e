package source

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestSourcesAgree gets the same kernel from each kind of source. The ID and all
// files must be the same.
func TestSourcesAgree(t *testing.T) {
	tree := kerneltest.Files(t)
	image, config, mods := tree[2], tree[3], tree[4:]
	merged := slices.Clone(tree)
	for i := range merged {
		merged[i].Name = strings.Replace(merged[i].Name, "./lib/", "./usr/lib/", 1)
	}
	fedora := append([]kerneltest.File{{Name: "lib/modules/" + kerneltest.Release + "/vmlinuz", Content: image.Content},
		{Name: "lib/modules/" + kerneltest.Release + "/config", Content: config.Content}}, mods...)
	linuxkit := []kerneltest.File{{Name: "kernel", Content: image.Content}, {Name: "kernel_config", Content: config.Content},
		{Name: "kernel.tar", Content: string(kerneltest.Tar(t, mods...))}}
	half := len(tree) - 3
	deb := func(format string, files ...kerneltest.File) string {
		return kerneltest.WriteFile(t, "k.deb", kerneltest.Deb(t, kerneltest.Control, format, files...))
	}
	rows := []struct {
		name, source string
		files        Files
	}{
		{"deb, plain", "deb:" + deb("none", tree...), Files{}},
		{"deb, gzip", "deb:" + deb("gzip", tree...), Files{}},
		{"deb, xz", "deb:" + deb("xz", tree...), Files{}},
		{"deb, zstd", "deb:" + deb("zstd", tree...), Files{}},
		{"deb, merged usr", "deb:" + deb("xz", merged...), Files{}},
		{"two debs", "deb:" + deb("xz", tree[:half]...) + "," + deb("xz", tree[half:]...), Files{}},
		{"tar", "tar:" + kerneltest.WriteFile(t, "k.tar", kerneltest.Tar(t, tree...)), Files{}},
		{"image", ociLayout(t, kerneltest.Tar(t, tree...)), Files{}},
		{"image of linuxkit", ociLayout(t, kerneltest.Tar(t, linuxkit...)), Files{}},
		{"kernel beside its modules", "tar:" + kerneltest.WriteFile(t, "f.tar", kerneltest.Tar(t, fedora...)), Files{}},
		{"loose files", "", Files{kerneltest.WriteFile(t, "vmlinuz", []byte(image.Content)), kerneltest.WriteFile(t, "config", []byte(config.Content)), modulesFolder(t)}},
	}
	var want *kernel.Kernel
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := openStore(t)
			k := pull(t, s, row.source, "", Options{Files: row.files})
			if k.Release != kerneltest.Release || !slices.Equal(k.Names, []string{kerneltest.Release}) || !k.PVH || k.Format != kernel.FormatBzImage || k.Arch != "amd64" {
				t.Errorf("manifest is %+v", k.Manifest)
			}
			if want == nil {
				want = k
			}
			if k.ID != want.ID {
				t.Errorf("ID is %s, want %s", k.ID, want.ID)
			}
			for name, f := range want.Files {
				if k.Files[name] != f {
					t.Errorf("%s is %v, want %v", name, k.Files[name], f)
				}
			}
			if left := leftovers(t, s); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
			boot, err := os.ReadFile(k.BootPath())
			if err != nil || !bytes.Equal(boot, kerneltest.VMLinux(kerneltest.Release, true)) {
				t.Errorf("BootPath is another kernel: %v", err)
			}
		})
	}
}

// ociLayout writes an image of one layer and returns its source.
func ociLayout(t *testing.T, layer []byte) string {
	t.Helper()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), l)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// modulesFolder writes the modules of kerneltest.Files into a folder.
func modulesFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range kerneltest.Files(t) {
		rel, ok := strings.CutPrefix(f.Name, "./lib/modules/"+kerneltest.Release+"/")
		if !ok || f.Target != "" || rel == "" || strings.HasSuffix(rel, "/") {
			continue
		}
		path := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.Content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/src/linux", filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestConcurrentPulls(t *testing.T) {
	s := openStore(t)
	source := "deb:" + kerneltest.WriteFile(t, "k.deb", kerneltest.Deb(t, kerneltest.Control, "gzip", kerneltest.Files(t)...))
	names := []string{"a", "b", "c", "d"}
	errs := make([]error, len(names))
	added := make([]bool, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() { _, added[i], errs[i] = Pull(t.Context(), s.Store, source, name, Options{}) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	kernels, damaged, err := s.List()
	if err != nil || len(kernels) != 1 || len(damaged) != 0 || len(leftovers(t, s)) != 0 {
		t.Fatalf("left %v, %v, %v, %v", kernels, damaged, leftovers(t, s), err)
	}
	slices.Sort(kernels[0].Names)
	if !slices.Equal(kernels[0].Names, names) {
		t.Errorf("names are %v", kernels[0].Names)
	}
	count := 0
	for _, f := range added {
		if f {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d pulls added the kernel", count)
	}
}

// TestDamagedBundles changes one part of a bundle at a time.
func TestDamagedBundles(t *testing.T) {
	s := openStore(t)
	k := pullDeb(t, s, "")
	var b bytes.Buffer
	if err := WriteBundle(t.Context(), &b, k); err != nil {
		t.Fatal(err)
	}
	whole := b.String()
	for name, row := range map[string]struct{ data, want string }{
		"whole":              {whole, ""},
		"kernel":             {strings.Replace(whole, "builder@host", "builder@evil", 1), "digest of its kernel"},
		"configuration":      {strings.Replace(whole, "CONFIG_EXT4_FS=y", "CONFIG_EXT4_FS=m", 1), "digest of its configuration"},
		"modules":            {strings.Replace(whole, "kernel/fs/ext4/ext4.ko", "kernel/fs/ext4/ext5.ko", 1), "digest of its modules"},
		"record":             {strings.Replace(whole, `"id": "sha256:`+k.ID.Hex()[:1], `"id": "sha256:`+"x", 1), "digest of its whole"},
		"of a newer schema":  {strings.Replace(whole, `"schema": 1`, `"schema": 9`, 1), "schema version 9"},
		"record not JSON":    {strings.Replace(whole, `"schema"`, `]schema"`, 1), recordFile},
		"without its record": {strings.Replace(whole, recordFile, "banger-kernel.jsox", 1), "checksum mismatch"},
		"truncated":          {whole[:len(whole)/2], "EOF"},
		"empty":              {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "whole" && row.data == whole {
				t.Fatal("nothing was changed")
			}
			other := openStore(t)
			_, _, err := Pull(t.Context(), other.Store, "bundle:"+kerneltest.WriteFile(t, "b.tar", []byte(row.data)), "", Options{})
			switch {
			case name == "whole":
				if err != nil {
					t.Fatal(err)
				}
				return
			case err == nil:
				t.Fatal("the bundle was accepted")
			case !strings.Contains(err.Error(), row.want):
				t.Errorf("error is %v, want %q", err, row.want)
			}
			if kernels, _, _ := other.List(); len(kernels) != 0 || len(leftovers(t, other)) != 0 {
				t.Error("something was left")
			}
		})
	}
}

func TestPullTwice(t *testing.T) {
	s := openStore(t)
	source := "deb:" + kerneltest.WriteFile(t, "k.deb", kerneltest.Deb(t, kerneltest.Control, "xz", kerneltest.Files(t)...))
	first := pull(t, s, source, "one", Options{})
	again, added, err := Pull(t.Context(), s.Store, source, "two", Options{})
	if err != nil || added || again.ID != first.ID || !slices.Equal(again.Names, []string{"one", "two"}) {
		t.Fatalf("got %v, %v, %v", again, added, err)
	}
	if err := os.Remove(again.Path(kernel.KernelFile)); err != nil {
		t.Fatal(err)
	}
	healed := pull(t, s, source, "two", Options{})
	for name, f := range healed.Files {
		if info, err := os.Stat(healed.Path(name)); err != nil || info.Size() != f.Size {
			t.Errorf("after repair: %s: %v, %v", name, info, err)
		}
	}
	if !slices.Equal(healed.Names, []string{"one", "two"}) {
		t.Errorf("after repair: %v", healed.Names)
	}
	forced := pull(t, s, source, "three", Options{Force: true})
	if len(forced.Names) != 3 || len(leftovers(t, s)) != 0 {
		t.Errorf("after force: %v, %v", forced.Names, leftovers(t, s))
	}
}

func TestSeveralReleases(t *testing.T) {
	tree := append(kerneltest.Files(t), kerneltest.File{Name: "./boot/vmlinuz-6.9.0", Content: string(kerneltest.BzImage("6.9.0", kerneltest.Payload(t, "gzip", kerneltest.VMLinux("6.9.0", true))))})
	source := "tar:" + kerneltest.WriteFile(t, "k.tar", kerneltest.Tar(t, tree...))
	s := openStore(t)
	_, _, err := Pull(t.Context(), s.Store, source, "", Options{})
	if several, ok := errors.AsType[*SeveralError](err); !ok || !slices.Equal(several.Releases, []string{kerneltest.Release, "6.9.0"}) {
		t.Errorf("got %v", err)
	}
	if _, _, err := Pull(t.Context(), s.Store, source, "", Options{Release: "5.0.0"}); err == nil || !strings.Contains(err.Error(), "no kernel 5.0.0") {
		t.Errorf("got %v", err)
	}
	if k := pull(t, s, source, "", Options{Release: kerneltest.Release}); k.Release != kerneltest.Release || k.Loadable.Count != 8 {
		t.Errorf("got %+v", k.Manifest)
	}
	if _, _, err := Pull(t.Context(), s.Store, source, "", Options{Release: "6.9.0"}); err == nil || !strings.Contains(err.Error(), "no modules in it") {
		t.Errorf("modules of another release: %v", err)
	}
}

// TestWithoutPVH has payloads that do not give a vmlinux. The kernel is the bzImage
// alone.
func TestWithoutPVH(t *testing.T) {
	for name, content := range map[string][]byte{
		"no PVH entry":        kerneltest.Payload(t, "zstd", kerneltest.VMLinux(kerneltest.Release, false)),
		"another release":     kerneltest.Payload(t, "zstd", kerneltest.VMLinux("1.2.3", true)),
		"unknown compression": []byte("no such compression"),
		"truncated":           kerneltest.Payload(t, "zstd", kerneltest.VMLinux(kerneltest.Release, true))[:50],
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			k := pull(t, s, "", "", Options{Files: Files{Kernel: kerneltest.WriteFile(t, "k", kerneltest.BzImage(kerneltest.Release, content))}})
			if k.PVH || k.BootPath() != k.Path(kernel.KernelFile) || len(k.Warnings) != 1 {
				t.Errorf("PVH %v, boots %s, warnings %v", k.PVH, k.BootPath(), k.Warnings)
			}
		})
	}
}

// TestELFKernel gets a kernel as ignite and Firecracker use it: an ELF file with
// an embedded configuration.
func TestELFKernel(t *testing.T) {
	data := append(kerneltest.VMLinux(kerneltest.Release, true), "IKCFG_ST"...)
	data = append(append(data, kerneltest.Compress(t, "gzip", []byte(kerneltest.Config))...), "IKCFG_ED"...)
	s := openStore(t)
	k := pull(t, s, "tar:"+kerneltest.WriteFile(t, "k.tar", kerneltest.Tar(t, kerneltest.File{Name: "boot/vmlinux-5.10", Content: string(data)},
		kerneltest.File{Name: "boot/vmlinux", Target: "vmlinux-5.10"})), "", Options{})
	if k.Format != kernel.FormatELF || !k.PVH || k.ModulesDisk() != "" || string(kerneltest.ReadFile(t, k.Path(kernel.ConfigFile))) != kerneltest.Config {
		t.Errorf("got %+v", k.Manifest)
	}
	if mods, err := k.Modules(t.Context(), []string{"ext4"}); err != nil || len(mods) != 0 {
		t.Errorf("modules: %v, %v", mods, err)
	}
	_, err := k.Modules(t.Context(), []string{"fuse"})
	if missing, ok := errors.AsType[*kernel.MissingError](err); !ok || !slices.Equal(missing.Missing, []string{"fuse"}) {
		t.Errorf("got %v", err)
	}
}

func TestLimitWarnings(t *testing.T) {
	if got := limitWarnings(slices.Repeat([]string{"w"}, 20)); len(got) != 20 || got[19] != "w" {
		t.Errorf("of 20: %q", got)
	}
	if got := limitWarnings(slices.Repeat([]string{"w"}, 25)); len(got) != 21 || got[20] != "and 5 more" {
		t.Errorf("of 25: %q", got)
	}
}
