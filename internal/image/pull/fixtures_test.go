package pull

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/banger-vm/banger/internal/base/digest"
)

// server is a registry whose responses a test can change.
type server struct {
	*httptest.Server
	registry http.Handler

	mu       sync.Mutex
	requests []*http.Request
	fault    func(w http.ResponseWriter, r *http.Request, next http.Handler)
}

func newServer(t *testing.T) *server { return startServer(t, (*httptest.Server).Start) }

func startServer(t *testing.T, start func(*httptest.Server)) *server {
	t.Helper()
	silent := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s := &server{registry: ggcr.New(ggcr.Logger(silent))}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = silent
	start(s.Server)
	t.Cleanup(s.Close)
	return s
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	fault := s.fault
	s.mu.Unlock()
	if fault != nil {
		fault(w, r, s.registry)
		return
	}
	s.registry.ServeHTTP(w, r)
}

// injectFault makes the server call fault for all later requests. If fault is
// nil, the registry itself serves them. It resets the count of requests.
func (s *server) injectFault(fault func(w http.ResponseWriter, r *http.Request, next http.Handler)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = fault
	s.requests = nil
}

// count returns the number of requests with part in their path.
func (s *server) count(part string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.requests {
		if strings.Contains(r.URL.Path, part) {
			n++
		}
	}
	return n
}

func (s *server) host() string { return s.Listener.Addr().String() }

func (s *server) ref(name string) string { return s.host() + "/" + name }

// push adds an image or an index to the registry, and returns its reference.
func (s *server) push(t *testing.T, tag string, pushed any) string {
	t.Helper()
	ref, err := name.ParseReference(s.ref(tag), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	auth := remote.WithTransport(s.Client().Transport)
	switch pushed := pushed.(type) {
	case v1.Image:
		err = remote.Write(ref, pushed, auth)
	case v1.ImageIndex:
		err = remote.WriteIndex(ref, pushed, auth)
	default:
		t.Fatalf("push of %T", pushed)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = nil
	return s.ref(tag)
}

// layerTar returns a tar of one file with size pseudo-random bytes.
func layerTar(t *testing.T, seed uint64, size int) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("file-%d", seed), Mode: 0o644, Size: int64(size), Typeflag: tar.TypeReg})
	if err != nil {
		t.Fatal(err)
	}
	body := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(body); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// makeImage returns a linux/amd64 image with layers of the given sizes in bytes.
func makeImage(t *testing.T, sizes ...int) v1.Image { return makePlatform(t, "amd64", "", sizes...) }

func makePlatform(t *testing.T, arch, variant string, sizes ...int) v1.Image {
	t.Helper()
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for i, size := range sizes {
		data := layerTar(t, uint64(i)+uint64(len(arch)*100+len(variant)), size)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
			tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(1))
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c = c.DeepCopy()
	c.OS, c.Architecture, c.Variant = "linux", arch, variant
	c.Config.Env = []string{"A=b"}
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	return img
}

func digestOfImage(t *testing.T, i interface{ Digest() (v1.Hash, error) }) digest.Digest {
	t.Helper()
	h, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest.Digest(h.String())
}

// compressedLayer returns the compressed bytes of layer i.
func compressedLayer(t *testing.T, img v1.Image, i int) []byte {
	t.Helper()
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[i].Compressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// testOptions returns options with a new cache and short waits, in an empty home
// folder.
func testOptions(t *testing.T) Options {
	t.Helper()
	isolateHome(t)
	return Options{
		Platform: "linux/amd64", CacheDir: filepath.Join(t.TempDir(), "cache"),
		Retries: 3, RetryDelay: time.Millisecond, Timeout: 10 * time.Second,
	}
}

// isolateHome sets an empty home folder, which hides the user's credentials, and
// returns it.
func isolateHome(t *testing.T) string {
	t.Helper()
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, v := range []string{"DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "DOCKER_AUTH_CONFIG", "DOCKER_HOST"} {
		t.Setenv(v, "")
	}
	t.Setenv("XDG_RUNTIME_DIR", filepath.Join(home, "run"))
	return home
}

func mustResolve(t *testing.T, source string, o Options) *Image {
	t.Helper()
	img, err := Resolve(t.Context(), source, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	})
	return img
}

// readLayer reads a layer to its end.
func readLayer(ctx context.Context, l Layer) ([]byte, error) {
	r, err := l.Open(ctx)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	if closeErr := r.Close(); err == nil {
		err = closeErr
	}
	return data, err
}

func mustRead(t *testing.T, l Layer) []byte {
	t.Helper()
	data, err := readLayer(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// expectLayers reads all layers and compares them with the layers of want.
func expectLayers(t *testing.T, got *Image, want v1.Image) {
	t.Helper()
	for i, l := range got.Layers {
		if !bytes.Equal(mustRead(t, l), compressedLayer(t, want, i)) {
			t.Errorf("layer %d: other bytes", i)
		}
	}
}

// listFiles returns the files in the cache except its lock.
func listFiles(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != "lock" {
			out = append(out, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// partials returns the files of partial downloads.
func partials(t *testing.T, o Options) []string {
	t.Helper()
	return listFiles(t, filepath.Join(o.CacheDir, "partial"))
}

// expectIntactBlobs verifies that every blob matches its digest.
func expectIntactBlobs(t *testing.T, o Options) {
	t.Helper()
	corrupt, err := OpenCache(o.CacheDir).Verify(t.Context())
	if err != nil || len(corrupt) > 0 {
		t.Errorf("corrupt blobs %v, %v", corrupt, err)
	}
}

func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// expectError verifies that err contains all of the texts, no control characters
// and no fault of package fmt.
func expectError(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("error %q does not contain %q", err, text)
		}
	}
	if strings.Contains(err.Error(), "%!") {
		t.Errorf("error %q has a formatting fault", err)
	}
	if strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
		t.Errorf("error %q has control characters", err)
	}
}

// dialTo returns a dial function that always connects to address.
func dialTo(address string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
}
