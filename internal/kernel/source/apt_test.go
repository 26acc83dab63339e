package source

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

// TestApt replaces apt-get by a script that copies packages of the test. It checks
// which packages the pull requests, and the error of a package that does not exist.
func TestApt(t *testing.T) {
	bin, debs := t.TempDir(), t.TempDir()
	tree := kerneltest.Files(t)
	half := len(tree) - 3
	for name, data := range map[string][]byte{
		"linux-image-virtual": kerneltest.Deb(t, "Package: linux-image-virtual\nVersion: 6.1.1\nDepends: linux-image-test (= 6.1-1), linux-firmware\n", "gzip"),
		"linux-image-test=6.1-1": kerneltest.Deb(t, "Package: linux-image-test\nVersion: 6.1-1\n"+
			"Depends: kmod, linux-base (>= 4) | linux-image-old, linux-modules-test\n", "zstd", tree[:half]...),
		"linux-image-old":    kerneltest.Deb(t, "Package: linux-image-old\nVersion: 1:0~rc1+x\nPre-Depends: linux-image-virtual\n", "none"),
		"linux-modules-test": kerneltest.Deb(t, "Package: linux-modules-test\nVersion: 6.1-1\nDepends:\n linux-image-test | x\n", "xz", tree[half:]...),
	} {
		if err := os.WriteFile(filepath.Join(debs, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	script := `#!/bin/sh
[ "$1 $2 $3" = "-q download --" ] || exit 9
echo "$4" >> "` + debs + `/log"
[ -f "` + debs + `/$4" ] || { echo "W: noise"; echo "E: Unable to locate package $4"; exit 100; } >&2
/bin/cp "` + debs + `/$4" ./got.deb
`
	if err := os.WriteFile(filepath.Join(bin, "apt-get"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin)
	s := openStore(t)
	k := pull(t, s, "apt:linux-image-virtual", "", Options{})
	if want := "apt:linux-image-virtual=6.1.1,linux-image-test=6.1-1,linux-image-old=1:0~rc1+x,linux-modules-test=6.1-1"; k.Origin != want {
		t.Errorf("origin is %s, want %s", k.Origin, want)
	}
	if k.Loadable.Count != 8 {
		t.Errorf("%d modules", k.Loadable.Count)
	}
	if got := string(kerneltest.ReadFile(t, filepath.Join(debs, "log"))); got != "linux-image-virtual\nlinux-image-test=6.1-1\nlinux-image-old\nlinux-modules-test\n" {
		t.Errorf("asked for %s", got)
	}
	_, _, err := Pull(t.Context(), s.Store, "apt:linux-image-none", "", Options{})
	if failure, ok := errors.AsType[*AptError](err); !ok || failure.Message != "Unable to locate package linux-image-none" {
		t.Errorf("got %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, _, err := Pull(t.Context(), s.Store, "apt:linux-image-none", "", Options{}); !errors.Is(err, ErrNoApt) {
		t.Errorf("got %v", err)
	}
}

// TestOnlyDebAcceptsPatternCharacters uses a folder whose name would be a pattern for
// filepath.Glob.
func TestOnlyDebAcceptsPatternCharacters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a]*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := onlyDeb(dir); err == nil {
		t.Error("found a package in an empty folder")
	}
	want := filepath.Join(dir, "x.deb")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := onlyDeb(dir); err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
}
