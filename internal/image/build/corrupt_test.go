package build

import (
	"bytes"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestB3CorruptDownloadChangesNoByte converts an image from a registry that sends
// each layer with wrong bytes at first. The bytes go into the disk before the digest
// shows that they are wrong.
func TestB3CorruptDownloadChangesNoByte(t *testing.T) {
	content := make([]byte, 5<<20)
	if _, err := rand.NewChaCha8([32]byte{1}).Read(content); err != nil {
		t.Fatal(err)
	}
	clear(content[1<<20 : 4<<20]) // wrong bytes in it make the data of the layer longer
	for _, row := range []struct {
		name    string
		plain   bool
		at, end int // of the wrong bytes; an at below 0 counts from the end
	}{
		{"gzip, at the start", false, 100, 101},
		{"gzip, in the middle", false, 1_000_000, 1_000_001},
		{"gzip, at the end", false, -1, 0},
		{"tar, first header", true, 125, 126}, // the size of the file
		{"tar, zeros", true, 2 << 20, 7 << 19},
	} {
		t.Run(row.name, func(t *testing.T) {
			ref, spoil := serveLayers(t, row.plain, layerTar(t, "a", []byte("a")), layerTar(t, "big", content))
			convert := func() string {
				sum, _ := convertOnce(t, ref, Options{MaxUnpacked: 6 << 20})
				return sum
			}
			want := convert()
			spoiled := spoil(row.at, row.end)
			if got := convert(); got != want {
				t.Errorf("disk %s, want %s", got, want)
			}
			if *spoiled == 0 {
				t.Error("nothing was spoiled")
			}
		})
	}
}

// serveLayers starts a registry with an image of the layers. spoil makes it change
// bytes of each blob of more than one block, the first time.
func serveLayers(t *testing.T, plain bool, tars ...[]byte) (ref string, spoil func(at, end int) *int) {
	t.Helper()
	inner := registry.New(registry.Logger(slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)))
	var mu sync.Mutex
	var first, last, count int
	var seen map[string]bool
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if seen == nil || !strings.Contains(r.URL.Path, "/blobs/") || seen[r.URL.Path] {
			inner.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		body := rec.Body.Bytes()
		if len(body) > 4096 {
			seen[r.URL.Path] = true
			count++
			for i := first; i < last; i++ {
				body[(i+len(body))%len(body)] ^= 1
			}
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(s.Close)
	img := empty.Image
	for _, data := range tars {
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		}, tarball.WithCompressionLevel(1))
		if err != nil {
			t.Fatal(err)
		}
		if plain {
			l = static.NewLayer(data, types.OCIUncompressedLayer)
		}
		if img, err = mutate.AppendLayers(img, l); err != nil {
			t.Fatal(err)
		}
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c.OS, c.Architecture = "linux", "amd64"
	if img, err = mutate.ConfigFile(img, c); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(strings.TrimPrefix(s.URL, "http://")+"/app:1", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(tag, img); err != nil {
		t.Fatal(err)
	}
	return tag.String(), func(at, end int) *int {
		mu.Lock()
		defer mu.Unlock()
		first, last, seen = at, end, map[string]bool{}
		return &count
	}
}
