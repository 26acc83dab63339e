package pull

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/banger-vm/banger/internal/base/digest"
)

// writeLayout writes an OCI layout of the images, and returns its path. The keys
// of images are the names.
func writeLayout(t *testing.T, images map[string]v1.Image) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	for n, img := range images {
		options := []layout.Option{}
		if n != "" {
			options = append(options, layout.WithAnnotations(map[string]string{annotationName: n}))
		}
		if err := path.AppendImage(img, options...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tarOfDir returns a tar of a folder.
func tarOfDir(t *testing.T, dir string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// dockerSave returns an archive in the format of docker save. The keys of images
// are the tags.
func dockerSave(t *testing.T, images map[string]v1.Image) []byte {
	t.Helper()
	tags := map[name.Tag]v1.Image{}
	for n, img := range images {
		tag, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = img
	}
	path := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.MultiWriteToFile(path, tags); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func tempFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "archive.tar")
	writeFile(t, path, string(data), 0o600)
	return path
}

func gzipped(t *testing.T, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zstdCompressed(t *testing.T, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	out := w.EncodeAll(data, nil)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestLocalSources reads one image from every kind of local source.
func TestLocalSources(t *testing.T) {
	want := makeImage(t, 1000, 200_000)
	one, two := writeLayout(t, map[string]v1.Image{"": want}), writeLayout(t, map[string]v1.Image{"v1": want, "v2": makeImage(t, 5)})
	named := writeLayout(t, map[string]v1.Image{"localhost:5000/x:1": want})
	saved := dockerSave(t, map[string]v1.Image{"org/app:1": want})
	both := dockerSave(t, map[string]v1.Image{"org/app:1": want, "org/app:2": makeImage(t, 5)})
	manifest := string(digestOfImage(t, want))
	id, err := want.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, source, shown, digest string }{
		{"layout", "oci:" + one, "layout:latest", manifest},
		{"layout with tag", "oci:" + two + ":v1", "layout:v1", manifest},
		{"layout with full name", "oci:" + named, "localhost:5000/x:1", manifest},
		{"layout by full name", "oci:" + named + ":localhost:5000/x:1", "localhost:5000/x:1", manifest},
		{"layout by digest", "oci:" + two + ":@" + manifest, "layout:v1", manifest},
		{"layout archive", "oci-archive:" + tempFile(t, tarOfDir(t, one)), "archive:latest", manifest},
		{"layout archive, gzip", "oci-archive:" + tempFile(t, gzipped(t, tarOfDir(t, two))) + ":v1", "archive:v1", manifest},
		{"docker archive", "docker-archive:" + tempFile(t, saved), "org/app:1", id.String()},
		{"docker archive, gzip", "docker-archive:" + tempFile(t, gzipped(t, saved)), "org/app:1", id.String()},
		{"docker archive, gzip and zeros", "docker-archive:" + tempFile(t, append(gzipped(t, saved), make([]byte, 512)...)), "org/app:1", id.String()},
		{"docker archive, zstd", "docker-archive:" + tempFile(t, zstdCompressed(t, saved)), "org/app:1", id.String()},
		{"docker archive by tag", "docker-archive:" + tempFile(t, both) + ":org/app:1", "org/app:1", id.String()},
		{"docker archive by full name", "docker-archive:" + tempFile(t, both) + ":docker.io/org/app:1", "org/app:1", id.String()},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := testOptions(t)
			img := mustResolve(t, row.source, o)
			if FamiliarName(img.Name) != row.shown || string(img.Digest) != row.digest || img.Platform != "linux/amd64" {
				t.Errorf("got %s %s %s", img.Name, img.Digest, img.Platform)
			}
			expectLocalLayers(t, img, want)
			expectEmptyCache(t, o)
		})
	}
}

func expectLocalLayers(t *testing.T, img *Image, want v1.Image) {
	t.Helper()
	layers, err := want.Layers()
	if err != nil || len(layers) != len(img.Layers) || len(layers) == 0 {
		t.Fatalf("%d layers, want %d (%v)", len(img.Layers), len(layers), err)
	}
	expectLayers(t, img, want)
	for i, l := range img.Layers {
		diffID, err := layers[i].DiffID()
		if err != nil || string(l.DiffID()) != diffID.String() || l.Size() != int64(len(compressedLayer(t, want, i))) {
			t.Errorf("layer %d: %s, %d bytes", i, l.DiffID(), l.Size())
		}
	}
}

// expectEmptyCache verifies that the cache has no blobs and no partial files.
func expectEmptyCache(t *testing.T, o Options) {
	t.Helper()
	_, n, err := OpenCache(o.CacheDir).Usage()
	if err != nil || n != 0 {
		t.Errorf("%d blobs in the cache, %v", n, err)
	}
	if _, err := os.Stat(o.CacheDir); errors.Is(err, fs.ErrNotExist) {
		return
	}
	if left := partials(t, o); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestArchiveFromAPipe(t *testing.T) {
	want := makeImage(t, 100_000)
	saved := dockerSave(t, map[string]v1.Image{"org/app:1": want})
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ name, source string }{{"fifo", "docker-archive:" + fifo}, {"stdin", "docker-archive:-"}} {
		t.Run(row.name, func(t *testing.T) {
			o := testOptions(t)
			done := make(chan error, 1)
			if row.name == "stdin" {
				o.Stdin = bytes.NewReader(saved)
				done <- nil
			} else {
				go func() { done <- os.WriteFile(fifo, saved, 0) }()
			}
			img := mustResolve(t, row.source, o)
			expectLocalLayers(t, img, want)
			expectEmptyCache(t, o)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTarSource(t *testing.T) {
	data := layerTar(t, 1, 5000)
	o := testOptions(t)
	path := filepath.Join(t.TempDir(), "rootfs.tar.gz")
	writeFile(t, path, string(gzipped(t, data)), 0o600)
	img := mustResolve(t, "tar:"+path, o)
	l := img.Layers[0]
	if img.Digest != "" || l.Digest() != "" || l.DiffID() != "" || FamiliarName(img.Name) != "rootfs:latest" || img.Platform != "linux/amd64" {
		t.Errorf("got %+v", img)
	}
	for range 2 {
		if got := mustRead(t, l); !bytes.Equal(got, gzipped(t, data)) || l.Size() != int64(len(got)) {
			t.Error("other bytes")
		}
	}
	if !bytes.Contains(img.RawConfig, []byte(`"architecture":"amd64"`)) {
		t.Errorf("configuration %s", img.RawConfig)
	}

	o.Stdin = bytes.NewReader(data)
	img = mustResolve(t, "tar:-", o)
	if img.Layers[0].Size() != -1 || !bytes.Equal(mustRead(t, img.Layers[0]), data) {
		t.Error("standard input: other bytes")
	}
	if _, err := readLayer(t.Context(), img.Layers[0]); err == nil {
		t.Error("standard input was read twice")
	}
}

// TestWaitingForAPipeEndsWithTheContext reads pipes that have no writer.
func TestWaitingForAPipeEndsWithTheContext(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, source := range []string{"tar:" + fifo, "tar:-", "docker-archive:" + fifo, "docker-archive:-"} {
		t.Run(source, func(t *testing.T) {
			o := testOptions(t)
			o.Stdin = r
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			start := time.Now()
			img, err := Resolve(ctx, source, o)
			if err == nil {
				_, err = readLayer(ctx, img.Layers[0])
			}
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) > time.Second {
				t.Errorf("%v after %v", err, time.Since(start))
			}
		})
	}
}

// startDaemon starts a Docker daemon that serves docker save archives.
func startDaemon(t *testing.T, images map[string][]byte) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "docker.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ref, ok := strings.CutPrefix(r.URL.Path, "/images/")
		data := images[strings.TrimSuffix(ref, "/get")]
		if !ok || data == nil {
			w.WriteHeader(http.StatusNotFound)
			_, _ = fmt.Fprintf(w, `{"message":"No such image: %s"}`, ref)
			return
		}
		_, _ = w.Write(data)
	}))
	if err := s.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	s.Listener = listener
	s.Start()
	t.Cleanup(s.Close)
	t.Setenv("DOCKER_HOST", "unix://"+socket)
}

func TestDaemonSource(t *testing.T) {
	o := testOptions(t)
	want := makeImage(t, 1000, 200_000)
	startDaemon(t, map[string][]byte{"org/app:1": dockerSave(t, map[string]v1.Image{"org/app:1": want}), "bad": []byte("hello")})
	img := mustResolve(t, "docker-daemon:org/app:1", o)
	if FamiliarName(img.Name) != "org/app:1" {
		t.Errorf("name %s", img.Name)
	}
	expectLocalLayers(t, img, want)
	expectEmptyCache(t, o)

	_, err := Resolve(t.Context(), "docker-daemon:org/app:2", o)
	expectError(t, err, "reading docker-daemon:org/app:2: ", "No such image: org/app:2")
	if !errors.Is(err, ErrNotFound) {
		t.Errorf("error %v", err)
	}
	_, err = Resolve(t.Context(), "docker-daemon:bad", o)
	expectError(t, err, "read archive")
	o.MaxSpool = 1000
	_, err = Resolve(t.Context(), "docker-daemon:org/app:1", o)
	expectError(t, err, "more than 1000 bytes")
	expectEmptyCache(t, o)
	t.Setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
	_, err = Resolve(t.Context(), "docker-daemon:org/app:1", o)
	expectError(t, err, "only unix://")
	t.Setenv("DOCKER_HOST", "unix:///no/such.sock")
	_, err = Resolve(t.Context(), "docker-daemon:org/app:1", o)
	expectError(t, err, "/no/such.sock", "no such file")
}

func TestLocalSourceErrors(t *testing.T) {
	saved := dockerSave(t, map[string]v1.Image{"org/app:1": makeImage(t, 4), "org/app:2": makeImage(t, 5)})
	two := writeLayout(t, map[string]v1.Image{"v1": makeImage(t, 4), "v2": makeImage(t, 5)})
	dir := t.TempDir()
	for _, row := range []struct {
		source string
		texts  []string
	}{
		{"tar:/no/such", []string{"no such file"}},
		{"tar:" + dir, []string{"is a folder"}},
		{"oci:/no/such", []string{"no such file"}},
		{"oci:" + dir, []string{"not an OCI image layout", "oci-layout"}},
		{"oci:" + two, []string{"several images", "v1", "v2"}},
		{"oci:" + two + ":v3", []string{"no image v3", "v1", "v2"}},
		{"oci-archive:" + tempFile(t, saved), []string{"not an OCI image layout"}},
		{"docker-archive:" + tempFile(t, tarOfDir(t, two)), []string{"not a docker save archive"}},
		{"docker-archive:" + tempFile(t, saved), []string{"several images", "org/app:1", "org/app:2"}},
		{"docker-archive:" + tempFile(t, saved) + ":org/app:3", []string{"no image org/app:3", "org/app:2"}},
		{"docker-archive:" + tempFile(t, []byte("\xfd7zXZ\x00...")), []string{"xz"}},
		{"docker-archive:" + tempFile(t, []byte("BZh9...")), []string{"bzip2"}},
		{"docker-archive:" + tempFile(t, []byte("this is no archive at all")), []string{"read archive"}},
		{"docker-archive:" + tempFile(t, nil), []string{"manifest.json"}},
		{"docker-archive:-", []string{"no standard input"}},
	} {
		o := testOptions(t)
		_, err := Resolve(t.Context(), row.source, o)
		expectError(t, err, append(row.texts, "reading "+row.source+": ")...)
		if strings.Count(err.Error(), row.source) != 1 {
			t.Errorf("%v does not name the source once", err)
		}
	}
}

// TestLocalLayersAreVerified damages stored layers.
func TestLocalLayersAreVerified(t *testing.T) {
	want := makeImage(t, 50_000)
	layer := compressedLayer(t, want, 0)
	bad := bytes.Clone(layer)
	bad[len(bad)/2] ^= 1
	dir := writeLayout(t, map[string]v1.Image{"": want})
	blobPath := filepath.Join(dir, "blobs/sha256", digest.FromBytes(layer).Hex())
	if err := os.WriteFile(blobPath, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"oci:" + dir, "oci-archive:" + tempFile(t, tarOfDir(t, dir))} {
		img := mustResolve(t, source, testOptions(t))
		_, err := readLayer(t.Context(), img.Layers[0])
		expectError(t, err, "layer "+string(digest.FromBytes(layer)), "digest mismatch")
	}
	for name, damage := range map[string]func() error{
		"shorter": func() error { return os.WriteFile(blobPath, layer[1:], 0o600) },
		"gone":    func() error { return nil },
		"outside": func() error { return os.Symlink("/etc/hostname", blobPath) },
		"a fifo":  func() error { return unix.Mkfifo(blobPath, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.Remove(blobPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
				t.Fatal(err)
			}
			if err := damage(); err != nil {
				t.Fatal(err)
			}
			_, err := Resolve(t.Context(), "oci:"+dir, testOptions(t))
			expectError(t, err, "layer "+string(digest.FromBytes(layer)))
		})
	}
}

// readString returns the content of a layer.
func readString(t *testing.T, l Layer) string {
	t.Helper()
	r, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
