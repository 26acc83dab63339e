package pull

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// namedImage is an image of a layout with its annotations.
type namedImage struct {
	image       v1.Image
	annotations map[string]string
	platform    *v1.Platform
}

func annotated(img v1.Image, full, ref string) namedImage {
	n := namedImage{image: img, annotations: map[string]string{}}
	if full != "" {
		n.annotations[annotationContainerd] = full
	}
	if ref != "" {
		n.annotations[annotationName] = ref
	}
	return n
}

func layoutOf(t *testing.T, images ...namedImage) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range images {
		options := []layout.Option{layout.WithAnnotations(n.annotations)}
		if n.platform != nil {
			options = append(options, layout.WithPlatform(*n.platform))
		}
		if err := path.AppendImage(n.image, options...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// forArch returns img with another architecture in its configuration.
func forArch(t *testing.T, img v1.Image, arch string) v1.Image {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture = arch
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return img
}

// TestLayoutChoice resolves layouts with several images. The image must be clear
// from the names and the platform, and the name from the annotations.
func TestLayoutChoice(t *testing.T) {
	a, b := makeImage(t, 100), makeImage(t, 200)
	arm := forArch(t, b, "arm64")
	digestA, digestB := string(digestOfImage(t, a)), string(digestOfImage(t, b))
	full := func(n string) string { return "docker.io/library/" + n }
	amd64, armv8 := &v1.Platform{OS: "linux", Architecture: "amd64"}, &v1.Platform{OS: "linux", Architecture: "arm64"}
	ctr := layoutOf(t, annotated(a, full("app:1"), "1"), annotated(b, full("other:1"), "1"))
	bare := layoutOf(t, annotated(a, "", ""), annotated(b, "", ""))
	same := layoutOf(t, annotated(a, "", "1"), annotated(b, "", "1"))
	platforms := layoutOf(t, namedImage{a, map[string]string{annotationName: "1"}, amd64}, namedImage{arm, map[string]string{annotationName: "1"}, armv8})
	configs := layoutOf(t, annotated(arm, "", ""), annotated(a, "", ""))
	twice := layoutOf(t, annotated(a, "", ""), annotated(a, "", ""))
	disagree := layoutOf(t, annotated(a, full("app:1"), "other:2"))
	podman := layoutOf(t, annotated(a, "", "localhost/app:1"), annotated(b, "", "docker.io/library/other:1"))
	signed := layoutOf(t, namedImage{a, map[string]string{"kind": cosignKind + "image"}, nil}, namedImage{b, map[string]string{"kind": cosignKind + "sigs"}, nil})
	for _, row := range []struct {
		name, source  string
		digest, shown string   // of the image, or
		texts         []string // of the error
	}{
		{"containerd's, no name", ctr, "", "", []string{"several images", full("app:1"), full("other:1")}},
		{"containerd's, the tag of both", ctr + ":1", "", "", []string{"several images", full("app:1"), full("other:1")}},
		{"containerd's, by name", ctr + ":other:1", digestB, "other:1", nil},
		{"no names", bare, "", "", []string{"several images", "@" + digestA, "@" + digestB}},
		{"no names, by digest", bare + ":@" + digestB, digestB, "layout:latest", nil},
		{"one name for both", same + ":1", "", "", []string{"several images", "@" + digestA, "@" + digestB}},
		{"one name for both, without it", same, "", "", []string{"several images", "@" + digestA}},
		{"an entry for each platform", platforms, digestA, "layout:1", nil},
		{"a configuration for each platform", configs, digestA, "layout:latest", nil},
		{"one image twice", twice, digestA, "layout:latest", nil},
		{"two names, by the first", disagree + ":app:1", digestA, "app:1", nil},
		{"two names, by the second", disagree + ":other:2", digestA, "other:2", nil},
		{"two names, unknown one", disagree + ":x", "", "", []string{"no image x", full("app:1") + " or other:2"}},
		{"podman's, short", podman + ":app:1", digestA, "localhost/app:1", nil},
		{"short name of Docker Hub's", podman + ":other:1", digestB, "other:1", nil},
		{"cosign's", signed, digestA, "layout:latest", nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			img, err := Resolve(t.Context(), "oci:"+row.source, testOptions(t))
			if row.texts != nil {
				expectError(t, err, row.texts...)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer img.Close()
			if string(img.Digest) != row.digest || FamiliarName(img.Name) != row.shown || img.NameError != nil {
				t.Errorf("got %s %s (%v), want %s %s", img.Digest, img.Name, img.NameError, row.digest, row.shown)
			}
		})
	}
	img := mustResolve(t, "oci:"+disagree, testOptions(t))
	if img.Name != "" || img.NameError == nil || !strings.Contains(img.NameError.Error(), "--name") {
		t.Errorf("two names: got %q, %v", img.Name, img.NameError)
	}
	_, err := Resolve(t.Context(), "oci:"+disagree+":x", testOptions(t))
	if !errors.Is(err, ErrNoImage) {
		t.Errorf("wrong tag: %v", err)
	}
}

// TestDockerArchiveChoice resolves archives with images of one tag for several
// platforms, and with names of podman's.
func TestDockerArchiveChoice(t *testing.T) {
	config := func(arch, author string) string {
		return fmt.Sprintf(`{"os":"linux","architecture":%q,"author":%q,"rootfs":{"type":"layers","diff_ids":[]}}`, arch, author)
	}
	archiveWith := func(tags []string, configs ...string) string {
		var saved []map[string]any
		members := []member{}
		for i, c := range configs {
			file := fmt.Sprint("c", i)
			members = append(members, member{name: file, body: c})
			saved = append(saved, map[string]any{"Config": file, "RepoTags": tags[i : i+1], "Layers": []string{}})
		}
		data, err := json.Marshal(saved)
		if err != nil {
			t.Fatal(err)
		}
		return "docker-archive:" + tempFile(t, archiveOf(t, append(members, member{name: "manifest.json", body: string(data)})...))
	}
	platforms := archiveWith([]string{"a:1", "a:1"}, config("arm64", "x"), config("amd64", "y"))
	equal := archiveWith([]string{"a:1", "a:1"}, config("amd64", "x"), config("amd64", "y"))
	podman := archiveWith([]string{"localhost/a:1", "docker.io/library/b:1", "localhost/b:1"}, config("amd64", "x"), config("amd64", "y"), config("amd64", "z"))
	for _, row := range []struct{ source, author, shown, want string }{
		{platforms, "y", "a:1", ""},
		{platforms + ":a:1", "y", "a:1", ""},
		{equal + ":a:1", "", "", "several images"},
		{podman + ":a:1", "x", "localhost/a:1", ""},
		{podman + ":b:1", "y", "b:1", ""},
		{podman + ":localhost/b:1", "z", "localhost/b:1", ""},
		{podman + ":c:1", "", "", "no image c:1"},
	} {
		img, err := Resolve(t.Context(), row.source, testOptions(t))
		if row.want != "" {
			expectError(t, err, row.want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", row.source, err)
			continue
		}
		if img.Config.Author != row.author || FamiliarName(img.Name) != row.shown {
			t.Errorf("%s: got %q %s", row.source, img.Config.Author, img.Name)
		}
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestSkopeoDir reads folders as "skopeo copy docker://… dir:…" writes them.
func TestSkopeoDir(t *testing.T) {
	want := makeImage(t, 1000, 200_000)
	from := writeLayout(t, map[string]v1.Image{"": want})
	dir := filepath.Join(t.TempDir(), "app")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	blobs, err := os.ReadDir(filepath.Join(from, "blobs/sha256"))
	if err != nil || len(blobs) != 4 {
		t.Fatalf("%d blobs, %v", len(blobs), err)
	}
	manifest := digestOfImage(t, want)
	for _, b := range blobs {
		name := b.Name()
		if name == manifest.Hex() {
			name = "manifest.json"
		}
		if err := os.Link(filepath.Join(from, "blobs/sha256", b.Name()), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	img := mustResolve(t, "dir:"+dir, testOptions(t))
	expectLocalLayers(t, img, want)
	if img.Digest != manifest || FamiliarName(img.Name) != "app:latest" {
		t.Errorf("got %s %s", img.Digest, img.Name)
	}
	// With --all, manifest.json is an index, and the images have files of their own.
	if err := os.Rename(filepath.Join(dir, "manifest.json"), filepath.Join(dir, manifest.Hex()+".manifest.json")); err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(from, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "manifest.json"), string(index), 0o600)
	expectLocalLayers(t, mustResolve(t, "dir:"+dir, testOptions(t)), want)
	_, err = Resolve(t.Context(), "dir:"+t.TempDir(), testOptions(t))
	expectError(t, err, "reading dir:", "manifest.json: no such file")
}

// TestPathsThatAreNoReferences resolves paths without a kind. The error has the
// sources that the user may mean.
func TestPathsThatAreNoReferences(t *testing.T) {
	img := makeImage(t, 100)
	t.Chdir(t.TempDir())
	dir := writeLayout(t, map[string]v1.Image{"": img})
	if err := os.Rename(dir, "layout"); err != nil {
		t.Fatal(err)
	}
	saved := dockerSave(t, map[string]v1.Image{"org/app:1": img})
	writeFile(t, "saved.tar", string(saved), 0o600)
	writeFile(t, "saved.tar.gz", string(gzipped(t, saved)), 0o600)
	writeFile(t, "layout.tar", string(tarOfDir(t, "layout")), 0o600)
	writeFile(t, "root.tar", string(layerTar(t, 1, 100)), 0o600)
	writeFile(t, "notes.tar", "no tar at all", 0o600)
	for text, want := range map[string]string{
		"./saved.tar":                  "docker-archive:./saved.tar",
		"saved.tar":                    "docker-archive:saved.tar",
		"saved.tar.gz":                 "tar:saved.tar.gz or docker-archive:saved.tar.gz or oci-archive:saved.tar.gz",
		"layout.tar":                   "oci-archive:layout.tar",
		"root.tar":                     "tar:root.tar",
		"./layout":                     "oci:./layout",
		"notes.tar":                    "oci:DIR",
		"./missing.tar":                "oci:DIR",
		"/missing":                     "oci:DIR",
		"../x:1":                       "oci:DIR",
		filepath.Join(dir, "../other"): "oci:DIR",
	} {
		_, err := Resolve(t.Context(), text, testOptions(t))
		var path *PathError
		if !errors.As(err, &path) || !strings.Contains(path.Hint(), want) || !strings.Contains(err.Error(), "not an image reference") {
			t.Errorf("%s: %v, want the hint %s", text, err, want)
		}
	}
	// A folder does not hide an image of its name, but explains why there is none.
	var path *PathError
	if err := withPath("layout", ErrNotFound); !errors.Is(err, ErrNotFound) || !errors.As(err, &path) || !strings.Contains(path.Hint(), "oci:layout") {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{"missing.tar", "layout"} {
		if err := checkNoArchive(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	_, err := Resolve(t.Context(), "containers-storage:x", testOptions(t))
	expectError(t, err, "containers-storage: are not supported")
}
