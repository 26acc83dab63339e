package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// ociLayout makes an image of one layer and returns its source.
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

// modulesFolder writes the modules of kernelTree as a folder of this host.
func modulesFolder(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range kernelTree(t) {
		rel, ok := strings.CutPrefix(f.name, "./lib/modules/"+testRelease+"/")
		if !ok || f.target != "" || rel == "" || strings.HasSuffix(rel, "/") {
			continue
		}
		path := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/src/linux", filepath.Join(dir, "build")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestSourcesAgree gets one kernel in every form: what it is decides its ID,
// not where it came from.
func TestSourcesAgree(t *testing.T) {
	tree := kernelTree(t)
	kernel, config, mods := tree[2], tree[3], tree[4:]
	merged := slices.Clone(tree)
	for i := range merged {
		merged[i].name = strings.Replace(merged[i].name, "./lib/", "./usr/lib/", 1)
	}
	fedora := append([]file{{name: "lib/modules/" + testRelease + "/vmlinuz", content: kernel.content},
		{name: "lib/modules/" + testRelease + "/config", content: config.content}}, mods...)
	linuxkit := []file{{name: "kernel", content: kernel.content}, {name: "kernel_config", content: config.content},
		{name: "kernel.tar", content: string(tarOf(t, mods...))}}
	half := len(tree) - 3
	deb := func(format string, files ...file) string {
		return writeFile(t, "k.deb", debOf(t, testControl, format, files...))
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
		{"tar", "tar:" + writeFile(t, "k.tar", tarOf(t, tree...)), Files{}},
		{"image", ociLayout(t, tarOf(t, tree...)), Files{}},
		{"image of linuxkit", ociLayout(t, tarOf(t, linuxkit...)), Files{}},
		{"kernel beside its modules", "tar:" + writeFile(t, "f.tar", tarOf(t, fedora...)), Files{}},
		{"loose files", "", Files{writeFile(t, "vmlinuz", []byte(kernel.content)), writeFile(t, "config", []byte(config.content)), modulesFolder(t)}},
	}
	var want *Kernel
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := openStore(t)
			k := pull(t, s, row.source, "", Options{Files: row.files})
			if k.Release != testRelease || !slices.Equal(k.Names, []string{testRelease}) || !k.PVH || k.Format != FormatBzImage || k.Arch != "amd64" {
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
			if err != nil || !bytes.Equal(boot, vmlinux(testRelease, true)) {
				t.Errorf("boots another kernel: %v", err)
			}
		})
	}
}

func TestExportRoundTrip(t *testing.T) {
	s := openStore(t)
	k := pull(t, s, "deb:"+writeFile(t, "k.deb", debOf(t, testControl, "xz", kernelTree(t)...)), "mine", Options{})
	for format, prefix := range map[string]string{FormatTar: "bundle:", FormatOCI: "oci-archive:"} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "export")
			if err := Export(t.Context(), k, path, format); err != nil {
				t.Fatal(err)
			}
			other := openStore(t)
			again := pull(t, other, prefix+path, "", Options{})
			if again.ID != k.ID || again.Origin != k.Origin || again.Files[modulesFile] != k.Files[modulesFile] {
				t.Errorf("got %+v, want %+v", again.Manifest, k.Manifest)
			}
			second := filepath.Join(t.TempDir(), "export")
			if err := Export(t.Context(), again, second, format); err != nil {
				t.Fatal(err)
			}
			a, b := mustRead(t, path), mustRead(t, second)
			if format == FormatTar && !bytes.Equal(a, b) {
				t.Error("the second export has other bytes")
			}
		})
	}
	if err := Export(t.Context(), k, filepath.Join(t.TempDir(), "x"), "zip"); err == nil {
		t.Error("an unknown format was written")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestDamagedBundles changes one thing in a bundle at a time.
func TestDamagedBundles(t *testing.T) {
	s := openStore(t)
	k := pull(t, s, "deb:"+writeFile(t, "k.deb", debOf(t, testControl, "xz", kernelTree(t)...)), "", Options{})
	var b bytes.Buffer
	if err := k.WriteBundle(t.Context(), &b); err != nil {
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
		"without its record": {strings.Replace(whole, recordFile, "banger-kernel.jsox", 1), "checksum does not fit"},
		"cut off":            {whole[:len(whole)/2], "EOF"},
		"empty":              {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "whole" && row.data == whole {
				t.Fatal("nothing was changed")
			}
			other := openStore(t)
			_, _, err := other.Pull(t.Context(), "bundle:"+writeFile(t, "b.tar", []byte(row.data)), "", Options{})
			switch {
			case name == "whole":
				if err != nil {
					t.Fatal(err)
				}
				return
			case err == nil:
				t.Fatal("was taken")
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
	source := "deb:" + writeFile(t, "k.deb", debOf(t, testControl, "xz", kernelTree(t)...))
	first := pull(t, s, source, "one", Options{})
	again, fresh, err := s.Pull(t.Context(), source, "two", Options{})
	if err != nil || fresh || again.ID != first.ID || !slices.Equal(again.Names, []string{"one", "two"}) {
		t.Fatalf("got %v, %v, %v", again, fresh, err)
	}
	if err := os.Remove(again.Image()); err != nil {
		t.Fatal(err)
	}
	healed := pull(t, s, source, "two", Options{})
	if err := healed.whole(); err != nil || !slices.Equal(healed.Names, []string{"one", "two"}) {
		t.Errorf("after repair: %v, %v", healed.Names, err)
	}
	forced := pull(t, s, source, "three", Options{Force: true})
	if len(forced.Names) != 3 || len(leftovers(t, s)) != 0 {
		t.Errorf("after force: %v, %v", forced.Names, leftovers(t, s))
	}
}

func TestReleaseMustBeClear(t *testing.T) {
	tree := append(kernelTree(t), file{name: "./boot/vmlinuz-6.9.0", content: string(bzImage("6.9.0", payload(t, "gzip", vmlinux("6.9.0", true))))})
	source := "tar:" + writeFile(t, "k.tar", tarOf(t, tree...))
	s := openStore(t)
	_, _, err := s.Pull(t.Context(), source, "", Options{})
	if several, ok := errors.AsType[*SeveralError](err); !ok || !slices.Equal(several.Releases, []string{testRelease, "6.9.0"}) {
		t.Errorf("got %v", err)
	}
	if _, _, err := s.Pull(t.Context(), source, "", Options{Release: "5.0.0"}); err == nil || !strings.Contains(err.Error(), "no kernel 5.0.0") {
		t.Errorf("got %v", err)
	}
	if k := pull(t, s, source, "", Options{Release: testRelease}); k.Release != testRelease || k.Loadable.Count != 8 {
		t.Errorf("got %+v", k.Manifest)
	}
	if _, _, err := s.Pull(t.Context(), source, "", Options{Release: "6.9.0"}); err == nil || !strings.Contains(err.Error(), "no modules in it") {
		t.Errorf("modules of another release: %v", err)
	}
}

// TestWithoutPVH keeps the bzImage where its payload is no use.
func TestWithoutPVH(t *testing.T) {
	for name, content := range map[string][]byte{
		"no PVH entry":        payload(t, "zstd", vmlinux(testRelease, false)),
		"another release":     payload(t, "zstd", vmlinux("1.2.3", true)),
		"unknown compression": []byte("no such compression"),
		"cut off":             payload(t, "zstd", vmlinux(testRelease, true))[:50],
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			k := pull(t, s, "", "", Options{Files: Files{Kernel: writeFile(t, "k", bzImage(testRelease, content))}})
			if k.PVH || k.BootPath() != k.Image() || len(k.Warnings) != 1 {
				t.Errorf("PVH %v, boots %s, warnings %v", k.PVH, k.BootPath(), k.Warnings)
			}
		})
	}
}

// TestELFKernel is ignite's and Firecracker's form: an ELF file alone, with
// its configuration inside.
func TestELFKernel(t *testing.T) {
	data := append(vmlinux(testRelease, true), "IKCFG_ST"...)
	data = append(append(data, compressed(t, "gzip", []byte(testConfig))...), "IKCFG_ED"...)
	s := openStore(t)
	k := pull(t, s, "tar:"+writeFile(t, "k.tar", tarOf(t, file{name: "boot/vmlinux-5.10", content: string(data)},
		file{name: "boot/vmlinux", target: "vmlinux-5.10"})), "", Options{})
	if k.Format != FormatELF || !k.PVH || k.ModulesDisk() != "" || string(mustRead(t, k.Path(configFile))) != testConfig {
		t.Errorf("got %+v", k.Manifest)
	}
	if mods, err := k.Modules(t.Context(), []string{"ext4"}); err != nil || len(mods) != 0 {
		t.Errorf("modules: %v, %v", mods, err)
	}
	_, err := k.Modules(t.Context(), []string{"fuse"})
	if missing, ok := errors.AsType[*MissingError](err); !ok || !slices.Equal(missing.Missing, []string{"fuse"}) {
		t.Errorf("got %v", err)
	}
}

func TestInstalled(t *testing.T) {
	for name, row := range map[string]struct {
		have []string
		want Files
		err  error
	}{
		"all": {
			[]string{"boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1/kernel/x.ko"},
			Files{"boot/vmlinuz-6.1", "boot/config-6.1", "lib/modules/6.1"}, nil,
		},
		"kernel alone":              {[]string{"boot/vmlinuz-6.1"}, Files{Kernel: "boot/vmlinuz-6.1"}, nil},
		"kernel beside its modules": {[]string{"lib/modules/6.1/vmlinuz"}, Files{Kernel: "lib/modules/6.1/vmlinuz", Modules: "lib/modules/6.1"}, nil},
		"another release":           {[]string{"boot/vmlinuz-6.2", "lib/modules/6.2/vmlinuz"}, Files{}, os.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for _, f := range row.have {
				path := filepath.Join(root, f)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := installed(root, "6.1")
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			for _, p := range []struct{ got, want string }{
				{got.Kernel, row.want.Kernel}, {got.Config, row.want.Config}, {got.Modules, row.want.Modules},
			} {
				if err == nil && p.got != "" && p.got != filepath.Join(root, p.want) || err == nil && p.got == "" && p.want != "" {
					t.Errorf("got %s, want %s", p.got, p.want)
				}
			}
		})
	}
}

func TestExportOfDamagedModules(t *testing.T) {
	k := pull(t, openStore(t), "deb:"+writeFile(t, "k.deb", debOf(t, testControl, "xz", kernelTree(t)...)), "", Options{})
	disk := mustRead(t, k.ModulesDisk())
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
