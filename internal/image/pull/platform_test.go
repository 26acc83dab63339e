package pull

import (
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

func TestPlatformNames(t *testing.T) {
	for text, want := range map[string]string{
		"": "linux/" + runtime.GOARCH, "linux/amd64": "linux/amd64", "Linux/x86_64": "linux/amd64", "linux/amd64/v1": "linux/amd64",
		"linux/amd64/v3": "linux/amd64/v3", "linux/aarch64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/arm": "linux/arm/v7",
		"linux/armhf": "linux/arm/v7", "linux/armel": "linux/arm/v6", "linux/arm/6": "linux/arm/v6", "linux/i386": "linux/386",
		"linux/riscv64": "linux/riscv64", "amd64": "linux/amd64", "x86_64": "linux/amd64", "arm/v6": "linux/arm/v6", "S390X": "linux/s390x",
	} {
		if p, err := parsePlatform(text); err != nil || p.String() != want && text != "" {
			t.Errorf("%q: got %s, %v, want %s", text, p, err, want)
		}
	}
	for _, text := range []string{"linux", "linux/", "/amd64", "linux/arm/v7/x", "linux//v7", "vax", "vax/v1/"} {
		if p, err := parsePlatform(text); err == nil {
			t.Errorf("%q was parsed as %s", text, p)
		}
	}
}

// TestP1VariantsFit selects the best variant for each platform.
func TestP1VariantsFit(t *testing.T) {
	for _, row := range []struct {
		want string
		have []string
		best string
	}{
		{"linux/amd64", []string{"linux/arm64", "linux/amd64/v2", "linux/amd64"}, "linux/amd64"},
		{"linux/amd64", []string{"linux/amd64/v2"}, ""},
		{"linux/amd64/v3", []string{"linux/amd64", "linux/amd64/v2", "linux/amd64/v4"}, "linux/amd64/v2"},
		{"linux/amd64", []string{"linux/386"}, ""},
		{"linux/arm", []string{"linux/arm/v5", "linux/arm/v6", "linux/arm/v8"}, "linux/arm/v6"},
		{"linux/arm/v6", []string{"linux/arm/v7", "linux/arm/v5"}, "linux/arm/v5"},
		{"linux/arm64", []string{"linux/arm/v7"}, ""},
		{"linux/arm64", []string{"linux/arm64/v8"}, "linux/arm64"},
		{"linux/arm64/v8.2", []string{"linux/arm64/v8.1", "linux/arm64", "linux/arm64/v9"}, "linux/arm64/v8.1"},
		{"linux/amd64", []string{"windows/amd64"}, ""},
		{"linux/mips/odd", []string{"linux/mips", "linux/mips/odd"}, "linux/mips/odd"},
	} {
		want, err := parsePlatform(row.want)
		if err != nil {
			t.Fatal(err)
		}
		best, fit := "", -1
		for _, h := range row.have {
			p, err := parsePlatform(h)
			if err != nil {
				t.Fatal(err)
			}
			if f := want.fits(p); f >= 0 && (fit < 0 || f < fit) {
				best, fit = p.String(), f
			}
		}
		if best != row.best {
			t.Errorf("%s of %v: got %q, want %q", row.want, row.have, best, row.best)
		}
	}
}

func withPlatform(index v1.ImageIndex, manifest mutate.Appendable, p *v1.Platform) v1.ImageIndex {
	return mutate.AppendManifests(index, mutate.IndexAddendum{Add: manifest, Descriptor: v1.Descriptor{Platform: p}})
}

// TestP1NestedIndexesAndEntriesWithoutPlatform finds an image whose platform is
// only in its configuration.
func TestP1NestedIndexesAndEntriesWithoutPlatform(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makePlatform(t, "arm64", "v8", 100)
	inner := withPlatform(withPlatform(empty.Index, makePlatform(t, "s390x", "", 10), nil), want, nil)
	index := withPlatform(empty.Index, makePlatform(t, "amd64", "", 10), &v1.Platform{OS: "linux", Architecture: "amd64"})
	index = withPlatform(index, makePlatform(t, "ppc64le", "", 10), &v1.Platform{OS: "unknown", Architecture: "unknown"})
	index = withPlatform(index, inner, nil)
	ref := s.push(t, "multi:1", index)
	o.Platform = "linux/arm64"
	img := mustResolve(t, ref, o)
	if img.Digest != digestOfImage(t, want) || img.Platform != "linux/arm64" {
		t.Errorf("got %s %s", img.Digest, img.Platform)
	}
	expectLayers(t, img, want)
	o.Platform = "linux/ppc64le" // the index has it only as an attestation
	_, err := Resolve(t.Context(), ref, o)
	expectError(t, err, "linux/amd64, linux/s390x, linux/arm64")
}

func TestP1IndexNestedTooDeep(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	index := withPlatform(empty.Index, makeImage(t, 10), nil)
	for range maxNesting {
		index = withPlatform(empty.Index, index, nil)
	}
	_, err := Resolve(t.Context(), s.push(t, "deep:1", index), o)
	expectError(t, err, "nested")
}

func TestP1IndexOfTooManyDocuments(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	index := v1.ImageIndex(empty.Index)
	for i := range maxDocuments/2 + 1 {
		index = withPlatform(index, makePlatform(t, "s390x", "", i), nil)
	}
	_, err := Resolve(t.Context(), s.push(t, "many:1", index), o)
	expectError(t, err, "documents")
}

func TestP1SingleManifestOfAnotherPlatform(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	ref := s.push(t, "app:1", makePlatform(t, "s390x", "", 10))
	for platform, wrong := range map[string]bool{"": true, "linux/amd64": true, "linux/s390x": false} {
		o.Platform = platform
		_, err := Resolve(t.Context(), ref, o)
		if (err != nil) != wrong {
			t.Errorf("platform %q: %v", platform, err)
		}
	}
}

func TestCheckPlatform(t *testing.T) {
	for _, row := range []struct {
		want, have string
		fits       bool
	}{
		{"linux/amd64", "linux/amd64", true},
		{"linux/x86_64", "linux/amd64", true},
		{"linux/arm64", "linux/amd64", false},
		{"linux/amd64", "linux/amd64/v3", false},
		{"linux/amd64/v3", "linux/amd64", true},
		{"linux/arm64", "", true},
		{"", "linux/" + runtime.GOARCH, true},
		{"", "linux/riscv64", false},
		{"linux/", "linux/amd64", false},
	} {
		if err := CheckPlatform(row.want, row.have); (err == nil) != row.fits {
			t.Errorf("an image for %q where %q is asked for: %v", row.have, row.want, err)
		}
	}
}
