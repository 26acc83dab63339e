package pull

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/banger-vm/banger/internal/base/digest"
)

func TestP1TagAndDigestResolveAnonymously(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000, 2000)
	tag := s.push(t, "org/app:1", want)
	byDigest := s.ref("org/app@" + string(digestOfImage(t, want)))
	for _, source := range []string{tag, "docker://" + tag, byDigest} {
		img := mustResolve(t, source, o)
		if img.Digest != digestOfImage(t, want) || img.Platform != "linux/amd64" || img.Source != source {
			t.Errorf("%s: got %s %s %s", source, img.Digest, img.Platform, img.Source)
		}
		raw, err := want.RawConfigFile()
		if err != nil || !bytes.Equal(raw, img.RawConfig) || img.Config.Config.Env[0] != "A=b" {
			t.Errorf("%s: other configuration (%v)", source, err)
		}
		expectLayers(t, img, want)
	}
	if got := mustResolve(t, tag, o).Name; got != tag {
		t.Errorf("name %s, want %s", got, tag)
	}
}

func TestP1PlatformIsTheHostsUnlessGiven(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	index := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"s390x", "riscv64", runtime.GOARCH} {
		img := makePlatform(t, arch, "", 500)
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	ref := s.push(t, "multi:1", index)
	for platform, want := range map[string]string{
		"": "linux/" + runtime.GOARCH, "linux/s390x": "linux/s390x", "linux/riscv64": "linux/riscv64",
	} {
		o.Platform = platform
		if img := mustResolve(t, ref, o); img.Platform != want || img.Config.Architecture != want[len("linux/"):] {
			t.Errorf("platform %q gave %s", platform, img.Platform)
		}
	}
	o.Platform = "linux/ppc64le"
	_, err := Resolve(t.Context(), ref, o)
	expectError(t, err, "pulling "+ref, "linux/ppc64le", "linux/s390x", "linux/riscv64")
	if e, ok := errors.AsType[*PlatformError](err); !ok || e.Want != "linux/ppc64le" || len(e.Have) != 3 {
		t.Errorf("got %#v", err)
	}
}

func TestP2CacheIsALayoutForOtherTools(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 30000, 20, 400)
	img := mustResolve(t, s.push(t, "org/app:1", want), o)
	dir := filepath.Join(o.CacheDir, "oci")
	if n := len(readLayoutIndex(t, dir)); n != 0 {
		t.Errorf("%d entries before any layer was read", n)
	}
	for i, l := range img.Layers {
		mustRead(t, l)
		if n := len(readLayoutIndex(t, dir)); n != (i+1)/len(img.Layers) {
			t.Errorf("%d entries after layer %d of %d", n, i+1, len(img.Layers))
		}
		if _, err := os.Stat(filepath.Join(dir, "blobs/sha256", l.Digest().Hex())); err != nil {
			t.Error(err)
		}
	}
	path, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	hash, err := v1.NewHash(string(img.Digest))
	if err != nil {
		t.Fatal(err)
	}
	got, err := path.Image(hash)
	if err != nil {
		t.Fatal(err)
	}
	for i := range img.Layers {
		if !bytes.Equal(compressedLayer(t, got, i), compressedLayer(t, want, i)) {
			t.Errorf("layer %d of the layout differs", i)
		}
	}
	if config, err := got.RawConfigFile(); err != nil || !bytes.Equal(config, img.RawConfig) {
		t.Errorf("configuration of the layout differs (%v)", err)
	}
	// A second image, and a second pull of the first, must not change the first.
	expectLayers(t, mustResolve(t, s.push(t, "org/other:1", makeImage(t, 7)), o), makeImage(t, 7))
	expectLayers(t, mustResolve(t, s.ref("org/app:1"), o), want)
	if n := len(readLayoutIndex(t, dir)); n != 2 {
		t.Errorf("%d entries, want 2", n)
	}
}

func readLayoutIndex(t *testing.T, dir string) []v1.Descriptor {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var index v1.IndexManifest
	if err := json.Unmarshal(data, &index); err != nil {
		t.Fatal(err)
	}
	return index.Manifests
}

func TestP2SkopeoReadsTheCache(t *testing.T) {
	skopeo := needTool(t, "skopeo")
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 30000, 20)
	img := mustResolve(t, s.push(t, "org/app:1", want), o)
	expectLayers(t, img, want)
	from := fmt.Sprintf("oci:%s:%s", filepath.Join(o.CacheDir, "oci"), img.Name)
	to := t.TempDir()
	for _, args := range [][]string{{"inspect", from}, {"copy", "--insecure-policy", from, "dir:" + to}} {
		out, err := exec.CommandContext(t.Context(), skopeo, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("skopeo %v: %v\n%s", args, err, out)
		}
	}
	for i := range img.Layers {
		got, err := os.ReadFile(filepath.Join(to, img.Layers[i].Digest().Hex()))
		if err != nil || !bytes.Equal(got, compressedLayer(t, want, i)) {
			t.Errorf("layer %d of skopeo's copy differs (%v)", i, err)
		}
	}
}

func TestP2MovedTagReplacesItsEntry(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	var last digest.Digest
	for _, size := range []int{10, 20, 30} {
		want := makeImage(t, size)
		img := mustResolve(t, s.push(t, "app:latest", want), o)
		expectLayers(t, img, want)
		last = img.Digest
	}
	entries := readLayoutIndex(t, filepath.Join(o.CacheDir, "oci"))
	if len(entries) != 1 || entries[0].Digest.String() != string(last) || entries[0].Annotations[annotationName] != s.ref("app:latest") {
		t.Errorf("entries %v", entries)
	}
}

func TestP3OpenAndCloseUnreadLeavesNothing(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	img := mustResolve(t, s.push(t, "app:1", makeImage(t, 500_000)), o)
	before := listFiles(t, o.CacheDir)
	for _, read := range []int{0, 1, 1000, 300_000} {
		r, err := img.Layers[0].Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, make([]byte, read)); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if after := listFiles(t, o.CacheDir); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("after %d bytes there is %v, before %v", read, after, before)
		}
		if _, err := r.Read(make([]byte, 1)); err == nil {
			t.Error("a closed layer can be read")
		}
	}
	if s.count("/blobs/"+string(img.Layers[0].Digest())) == 0 {
		t.Error("the registry received no request: the test shows nothing")
	}
}

func TestP3BlobAppearsOnlyAfterVerifiedEOF(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 300_000)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	path := filepath.Join(o.CacheDir, "oci/blobs/sha256", img.Layers[0].Digest().Hex())
	r, err := img.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := io.ReadFull(r, make([]byte, img.Layers[0].Size())); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the blob has its name before the end of the layer")
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Fatalf("read %d, %v", n, err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, compressedLayer(t, want, 0)) {
		t.Errorf("cached blob: other bytes (%v)", err)
	}
	if left := partials(t, o); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestP3CorruptCachedBlobIsFetchedAgain(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 200_000)
	ref := s.push(t, "app:1", want)
	expectLayers(t, mustResolve(t, ref, o), want)
	for name, damage := range map[string]func(path string, data []byte) error{
		"flipped bit": func(p string, d []byte) error { d[len(d)/2] ^= 1; return os.WriteFile(p, d, 0o600) },
		"cut short":   func(p string, d []byte) error { return os.Truncate(p, int64(len(d)-1)) },
		"empty":       func(p string, _ []byte) error { return os.Truncate(p, 0) },
		"longer":      func(p string, d []byte) error { return os.WriteFile(p, append(d, 0), 0o600) },
		"gone":        func(p string, _ []byte) error { return os.Remove(p) },
	} {
		t.Run(name, func(t *testing.T) {
			for _, b := range listFiles(t, filepath.Join(o.CacheDir, "oci/blobs/sha256")) {
				path := filepath.Join(o.CacheDir, "oci/blobs/sha256", b)
				data, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := damage(path, data); err != nil {
					t.Fatal(err)
				}
			}
			s.injectFault(nil)
			img := mustResolve(t, ref, o)
			expectLayers(t, img, want)
			if s.count(string(img.Layers[0].Digest())) != 1 {
				t.Errorf("%d requests for the layer, want 1", s.count(string(img.Layers[0].Digest())))
			}
			expectIntactBlobs(t, o)
			expectLayers(t, img, want)
			if s.count(string(img.Layers[0].Digest())) != 1 {
				t.Error("a sound blob was fetched again")
			}
		})
	}
}

func TestP4ResolveOpensNoLayer(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	img := mustResolve(t, s.push(t, "app:1", makeImage(t, 5000, 6000)), o)
	for _, l := range img.Layers {
		if n := s.count(string(l.Digest())); n != 0 {
			t.Errorf("%d requests for layer %s", n, l.Digest())
		}
	}
	if s.count("/manifests/") == 0 {
		t.Error("no request for the manifest: the count is wrong")
	}
}
