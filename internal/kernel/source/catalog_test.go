package source

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
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
		// A source in the code must not name a download host.
		for _, s := range e.Sources {
			if strings.Contains(s, "/") {
				t.Errorf("%s: source %s", e.Name, s)
			}
		}
	}
}

func TestCatalogErrors(t *testing.T) {
	for name, row := range map[string]struct{ text, want string }{
		"not TOML":                  {"[[", "read catalog"},
		"unknown key":               {"[kernel.a]\nsource = 'host'\n", "line 2: unknown key"},
		"no sources":                {"[kernel.a]\nsummary = 'x'\n", "kernel.a: no sources"},
		"bad name":                  {"[kernel.'../a']\nsources = ['host']\n", "name is not usable"},
		"bad source":                {"[kernel.a]\nsources = ['debian:12']\n", "neither in the catalog nor a source"},
		"option as a package":       {"[kernel.a]\nsources = ['apt:-oX=y']\n", "want apt:PACKAGE"},
		"relative path":             {"[kernel.a]\nsources = ['deb:x.deb']\n", "absolute path"},
		"sha256 of apt":             {"[kernel.a]\nsources = ['apt:linux-image-x']\nsha256 = '" + strings.Repeat("a", 64) + "'\n", "one file"},
		"sha256 of two":             {"[kernel.a]\nsources = ['deb:/a,/b']\nsha256 = '" + strings.Repeat("a", 64) + "'\n", "one file"},
		"sha256 is not hexadecimal": {"[kernel.a]\nsources = ['deb:/a']\nsha256 = 'abc'\n", "hexadecimal"},
		"too large":                 {strings.Repeat("#", maxCatalog+1), "more than"},
		"release that is a path":    {"[kernel.a]\nsources = ['host:../x']\n", "not a kernel release"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Catalog(kerneltest.WriteFile(t, "kernels.toml", []byte(row.text)))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error is %v, want %q", err, row.want)
			}
		})
	}
}

func TestUserCatalog(t *testing.T) {
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
	var reports []string
	o := entry(strings.Repeat("0", 64))
	o.Report = func(text string) { reports = append(reports, text) }
	if _, _, err := Pull(t.Context(), s.Store, "second", "", o); err != nil || !strings.Contains(strings.Join(reports, "\n"), "trying deb:"+deb) {
		t.Errorf("the second source: %v, reports %q", err, reports)
	}
	if _, _, err := Pull(t.Context(), s.Store, "nothing", "", o); err == nil {
		t.Error("found a name that is not in the catalog")
	} else if _, ok := errors.AsType[*SourceError](err); !ok {
		t.Errorf("got %v", err)
	}
}
