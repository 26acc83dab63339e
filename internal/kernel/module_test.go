package kernel_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
	"github.com/banger-vm/banger/internal/kernel/source"
)

// pull gets a kernel into a new store.
func pull(t *testing.T, wanted string, o source.Options) *kernel.Kernel {
	t.Helper()
	s, err := kernel.Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	o.Build.Pull.CacheDir = t.TempDir()
	k, _, err := source.Pull(t.Context(), s, wanted, "k", o)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pullDeb(t *testing.T) *kernel.Kernel {
	t.Helper()
	deb := kerneltest.Deb(t, kerneltest.Control, "xz", kerneltest.Files(t)...)
	return pull(t, "deb:"+kerneltest.WriteFile(t, "k.deb", deb), source.Options{})
}

// isModule reports whether data is a module that is not compressed.
func isModule(data []byte) bool {
	f, err := elf.NewFile(bytes.NewReader(data))
	return err == nil && f.Type == elf.ET_REL && f.Section(".modinfo") != nil
}

func TestModules(t *testing.T) {
	k := pullDeb(t)
	for name, row := range map[string]struct{ wanted, order, missing string }{
		"dependency order":       {"virtio_blk", "virtio virtio_ring virtio_blk", ""},
		"dash for underscore":    {"virtio-blk virtio-ring", "virtio virtio_ring virtio_blk", ""},
		"twice":                  {"virtio virtio", "virtio", ""},
		"modules.builtin":        {"ext4 jbd2", "", ""},
		"configuration":          {"devtmpfs", "", ""},
		"soft dependency":        {"soft", "sum soft", ""},
		"alias":                  {"crypto_sum", "sum", ""},
		"cycle":                  {"cycle", "cycle2 cycle", ""},
		"nothing":                {"", "", ""},
		"missing":                {"virtio fuse overlay fuse", "", "fuse overlay"},
		"missing dependency":     {"lost", "", "nowhere"},
		"module in config alone": {"virtio_blk xfs", "", "xfs"},
	} {
		t.Run(name, func(t *testing.T) {
			mods, err := k.Modules(t.Context(), strings.Fields(row.wanted))
			var got []string
			for _, m := range mods {
				got = append(got, m.Name)
				if !isModule(m.Data) {
					t.Errorf("%s is not decompressed", m.Name)
				}
			}
			if strings.Join(got, " ") != row.order {
				t.Errorf("order %v, want %s", got, row.order)
			}
			missing, ok := errors.AsType[*kernel.MissingError](err)
			if (row.missing == "") != (err == nil) || ok && !slices.Equal(missing.Missing, strings.Fields(row.missing)) {
				t.Errorf("error %v, want %q missing", err, row.missing)
			}
		})
	}
}

// TestModulesDoesNotFollowSymlinks points an entry of the index to a symlink.
func TestModulesDoesNotFollowSymlinks(t *testing.T) {
	files := append(kerneltest.Files(t),
		kerneltest.File{Name: "./lib/modules/" + kerneltest.Release + "/kernel/alias.ko", Target: "/etc/passwd"})
	k := pull(t, "tar:"+kerneltest.WriteFile(t, "k.tar", kerneltest.Tar(t, files...)), source.Options{})
	path := k.Path("modules.json")
	index := bytes.Replace(kerneltest.ReadFile(t, path), []byte("kernel/virtio.ko"), []byte("kernel/alias.ko"), 1)
	if err := os.WriteFile(path, index, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Modules(t.Context(), []string{"virtio"}); err == nil || !strings.Contains(err.Error(), "alias.ko: not a regular file") {
		t.Errorf("got %v", err)
	}
}

func TestFeatures(t *testing.T) {
	features, err := pullDeb(t).Features()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]kernel.State{}
	for _, f := range features {
		got[f.Name] = f.State
	}
	for name, want := range map[string]kernel.State{
		"ext4": kernel.BuiltIn, "devtmpfs": kernel.BuiltIn, "virtio_blk": kernel.IsModule,
		"virtio_console": kernel.Missing, "pvh": kernel.BuiltIn, "fuse": kernel.Missing,
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	files := source.Files{Kernel: kerneltest.WriteFile(t, "k", kerneltest.VMLinux("6.2.0", true))}
	bare := pull(t, "", source.Options{Files: files})
	if features, err = bare.Features(); err != nil || features[0].State != kernel.Unknown {
		t.Errorf("without a configuration: %v, %v", features[0], err)
	}
	if mods, err := bare.Modules(t.Context(), []string{"virtio_blk"}); err != nil || len(mods) != 0 {
		t.Errorf("without a configuration: %v, %v", mods, err)
	}
}
