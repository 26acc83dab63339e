package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/kerneltest"
)

func TestBuiltinCatalog(t *testing.T) {
	entries, err := Catalog(filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(entries, func(e Entry) bool { return e.Name == kernel.DefaultName }) {
		t.Error("no default")
	}
	for _, e := range entries {
		if e.Summary == "" {
			t.Errorf("%s has no summary", e.Name)
		}
		// The code names no host to download from.
		for _, s := range e.Sources {
			if strings.Contains(s, "/") {
				t.Errorf("%s: source %s", e.Name, s)
			}
		}
	}
}

func TestCatalogFaults(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"not TOML":               {"[[", "read catalog"},
		"unknown key":            {"[kernel.a]\nsource = 'host'\n", "line 2: unknown key"},
		"no sources":             {"[kernel.a]\nsummary = 'x'\n", "kernel.a: no sources"},
		"bad name":               {"[kernel.'../a']\nsources = ['host']\n", "name is not usable"},
		"bad source":             {"[kernel.a]\nsources = ['debian:12']\n", "neither in the catalog nor a source"},
		"option as a package":    {"[kernel.a]\nsources = ['apt:-oX=y']\n", "want apt:PACKAGE"},
		"relative path":          {"[kernel.a]\nsources = ['deb:x.deb']\n", "absolute path"},
		"sha256 of apt":          {"[kernel.a]\nsources = ['apt:linux-image-x']\nsha256 = '" + strings.Repeat("a", 64) + "'\n", "one file"},
		"sha256 of two":          {"[kernel.a]\nsources = ['deb:/a,/b']\nsha256 = '" + strings.Repeat("a", 64) + "'\n", "one file"},
		"sha256 is none":         {"[kernel.a]\nsources = ['deb:/a']\nsha256 = 'abc'\n", "hexadecimal"},
		"larger than is taken":   {strings.Repeat("#", maxCatalog+1), "more than"},
		"release that is a path": {"[kernel.a]\nsources = ['host:../x']\n", "not a kernel release"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Catalog(kerneltest.WriteFile(t, "kernels.toml", []byte(row.text)))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
		})
	}
}

func TestCatalogOfTheUser(t *testing.T) {
	deb := kerneltest.WriteFile(t, "k.deb", kerneltest.Deb(t, kerneltest.Control, "xz", kerneltest.Files(t)...))
	sum := sha256.Sum256(kerneltest.ReadFile(t, deb))
	entry := func(sha string) Options {
		text := fmt.Sprintf("[kernel.default]\nsources = ['deb:%s']\nsha256 = '%s'\n[kernel.second]\nsources = ['deb:/nowhere', 'deb:%s']\n", deb, sha, deb)
		return Options{Catalog: kerneltest.WriteFile(t, "kernels.toml", []byte(text))}
	}
	s := openStore(t)
	k := pull(t, s, kernel.DefaultName, "", entry(hex.EncodeToString(sum[:])))
	if !slices.Equal(k.Names, []string{kernel.DefaultName}) || k.Origin != "deb:linux-image-test=6.1-1" {
		t.Errorf("got %+v", k.Manifest)
	}
	_, _, err := Pull(t.Context(), s.Store, kernel.DefaultName, "", entry(strings.Repeat("0", 64)))
	if err == nil || !strings.Contains(err.Error(), "the catalog has 0000") {
		t.Errorf("another digest: %v", err)
	}
	var said []string
	o := entry(strings.Repeat("0", 64))
	o.Report = func(text string) { said = append(said, text) }
	if _, _, err := Pull(t.Context(), s.Store, "second", "", o); err != nil || !strings.Contains(strings.Join(said, "\n"), "trying deb:"+deb) {
		t.Errorf("the second source: %v, said %q", err, said)
	}
	if _, _, err := Pull(t.Context(), s.Store, "nothing", "", o); err == nil {
		t.Error("a name that nobody knows was found")
	} else if _, ok := errors.AsType[*SourceError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// TestApt runs a stand-in for apt-get that gives packages of this test: what
// is asked for, and how what it says is told.
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

func TestFolderNameIsNoPattern(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "[a]*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := onlyDeb(dir); err == nil {
		t.Error("found a package where there is none")
	}
	want := filepath.Join(dir, "x.deb")
	if err := os.WriteFile(want, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := onlyDeb(dir); err != nil || got != want {
		t.Errorf("got %s, %v", got, err)
	}
}
