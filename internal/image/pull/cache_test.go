package pull

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/flock"
)

// TestP3ManyReadersOneDownload reads the same layers concurrently. Each image
// opens the cache itself, as separate processes do.
func TestP3ManyReadersOneDownload(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1<<20, 300_000)
	ref := s.push(t, "app:1", want)
	var wg sync.WaitGroup
	errs := make(chan error, 16)
	for range 4 {
		img := mustResolve(t, ref, o)
		for i, l := range img.Layers {
			wg.Go(func() {
				data, err := readLayer(t.Context(), l)
				if err == nil && !bytes.Equal(data, compressedLayer(t, want, i)) {
					err = errors.New("other bytes")
				}
				errs <- err
			})
		}
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	for _, l := range mustResolve(t, ref, o).Layers {
		if n := s.count("/blobs/" + string(l.Digest())); n != 1 {
			t.Errorf("layer %s was requested %d times, want 1", l.Digest().Short(), n)
		}
	}
	expectIntactBlobs(t, o)
	if left := partials(t, o); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestP3WaiterFallsBack reads a layer while another reader of it has stopped in
// the middle.
func TestP3WaiterFallsBack(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	o.Timeout = 100 * time.Millisecond
	want := makeImage(t, 1<<20)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	stuck, err := img.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stuck, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := readLayer(ctx, img.Layers[0]); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a waiter after its deadline: %v", err)
	}
	expectLayers(t, img, want)
	if err := stuck.Close(); err != nil {
		t.Error(err)
	}
	expectLayers(t, img, want)
	expectIntactBlobs(t, o)
	if left := partials(t, o); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestP3WaiterTakesOver waits for a download that ends early.
func TestP3WaiterTakesOver(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1<<20)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	first, err := img.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(first, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		data, err := readLayer(t.Context(), img.Layers[0])
		if err == nil && !bytes.Equal(data, compressedLayer(t, want, 0)) {
			err = errors.New("other bytes")
		}
		done <- err
	}()
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	expectIntactBlobs(t, o)
}

// TestP3KilledDownloadIsResumed runs a pull in another process and kills it in the
// middle of a layer.
func TestP3KilledDownloadIsResumed(t *testing.T) {
	if ref := os.Getenv("PULL_AND_WAIT"); ref != "" {
		o := Options{Platform: "linux/amd64", CacheDir: os.Getenv("PULL_CACHE")}
		_, err := readLayer(t.Context(), mustResolve(t, ref, o).Layers[0])
		t.Fatalf("the layer ended: %v", err)
	}
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1<<20)
	data := compressedLayer(t, want, 0)
	ref := s.push(t, "app:1", want)
	expected := mustResolve(t, ref, o)
	s.injectFault(onBlob(expected.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:len(data)/2])
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), "PULL_AND_WAIT="+ref, "PULL_CACHE="+o.CacheDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	path := OpenCache(o.CacheDir).partials.path(expected.Layers[0].Digest())
	deadline := time.Now().Add(20 * time.Second)
	for {
		if info, err := os.Stat(path); err == nil && info.Size() == int64(len(data)/2) {
			break
		}
		if time.Now().After(deadline) {
			t.Error("the child does not download")
			break
		}
		<-time.After(time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // killed
	expectIntactBlobs(t, o)

	var ranges []string
	s.injectFault(onBlob(expected.Layers[0], func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		ranges = append(ranges, r.Header.Get("Range"))
		serveRange(w, r, data, len(data))
	}))
	expectLayers(t, mustResolve(t, ref, o), want)
	if fmt.Sprint(ranges) != fmt.Sprintf("[bytes=%d-]", len(data)/2) {
		t.Errorf("requested %v", ranges)
	}
	expectIntactBlobs(t, o)
	if left := partials(t, o); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

func TestP3ResolveSweepsFilesOfDeadProcesses(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000)
	ref := s.push(t, "app:1", want)
	expectLayers(t, mustResolve(t, ref, o), want)
	c := OpenCache(o.CacheDir)
	cached := mustResolve(t, ref, o).Layers[0].Digest()
	hex := func(c string) digest.Digest { return digest.Digest("sha256:" + strings.Repeat(c, 64)) }
	old := time.Now().Add(-25 * time.Hour)
	for _, row := range []struct {
		name     string
		age      time.Time
		withLock bool
		want     bool
	}{
		{"tmp-123", time.Now(), false, false},
		{hex("a").Hex() + "-123", time.Now(), false, false},
		{hex("b").Hex() + "-123", time.Now(), true, true},
		{hex("c").Hex(), time.Now(), false, true},
		{hex("d").Hex(), old, false, false},
		{hex("e").Hex(), old, true, true},
		{cached.Hex(), time.Now(), false, false},
		{"strange", time.Now(), false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(c.dir.partials(), row.name)
			f, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if row.withLock {
				if got, err := flock.TryLock(f); !got || err != nil {
					t.Fatal(got, err)
				}
			}
			if err := os.Chtimes(path, row.age, row.age); err != nil {
				t.Fatal(err)
			}
			mustResolve(t, ref, o)
			if _, err := os.Stat(path); (err == nil) != row.want {
				t.Errorf("exists: %v, want %v", err == nil, row.want)
			}
		})
	}
}

func TestPruneKeepsBlobsOfKeptManifests(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	first, second := makeImage(t, 1000, 20), makeImage(t, 1000, 30)
	img := mustResolve(t, s.push(t, "app:1", first), o)
	expectLayers(t, img, first)
	other := mustResolve(t, s.push(t, "app:2", second), o)
	expectLayers(t, other, second)
	c := OpenCache(o.CacheDir)
	if err := os.WriteFile(filepath.Join(c.dir.partials(), strings.Repeat("f", 64)), make([]byte, 77), 0o600); err != nil {
		t.Fatal(err)
	}
	before, count, err := c.Usage()
	if err != nil || count != 7 { // two manifests, two configurations, three layers
		t.Fatalf("%d blobs, %v", count, err)
	}
	freed, err := c.Prune(t.Context(), func(d digest.Digest) bool { return d == img.Digest })
	after, count, usageErr := c.Usage()
	if err != nil || usageErr != nil || count != 4 || freed != before-after+77 {
		t.Errorf("freed %d, %d blobs left, %v, %v", freed, count, err, usageErr)
	}
	entries := readLayoutIndex(t, c.dir.layout())
	if len(entries) != 1 || entries[0].Digest.String() != string(img.Digest) {
		t.Errorf("entries %v", entries)
	}
	s.injectFault(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusTeapot) })
	// A reference by digest needs only the cache.
	expectLayers(t, mustResolve(t, s.ref("app@"+string(img.Digest)), o), first)
	if _, err := c.Prune(t.Context(), func(digest.Digest) bool { return false }); err != nil {
		t.Error(err)
	}
	if _, count, err := c.Usage(); err != nil || count != 0 {
		t.Errorf("%d blobs left, %v", count, err)
	}
	if n := len(readLayoutIndex(t, c.dir.layout())); n != 0 {
		t.Errorf("%d entries left", n)
	}
}

func TestPruneKeepsRunningDownloads(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1<<20)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	r, err := img.Layers[0].Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	head := make([]byte, 1000)
	if _, err := io.ReadFull(r, head); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenCache(o.CacheDir).Prune(t.Context(), func(digest.Digest) bool { return false }); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(slices.Concat(head, rest), compressedLayer(t, want, 0)) {
		t.Errorf("other bytes, %v", err)
	}
	if n := len(readLayoutIndex(t, OpenCache(o.CacheDir).dir.layout())); n != 0 {
		t.Errorf("%d entries of an image whose manifest was removed", n)
	}
	expectIntactBlobs(t, o)
}

func TestVerifyFindsCorruptBlobs(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000, 2000)
	img := mustResolve(t, s.push(t, "app:1", want), o)
	expectLayers(t, img, want)
	expectIntactBlobs(t, o)
	path := OpenCache(o.CacheDir).blobs.path(img.Layers[1].Digest())
	if err := os.Truncate(path, 10); err != nil {
		t.Fatal(err)
	}
	corrupt, err := OpenCache(o.CacheDir).Verify(t.Context())
	if err != nil || len(corrupt) != 1 || corrupt[0] != img.Layers[1].Digest() {
		t.Errorf("got %v, %v", corrupt, err)
	}
}

func TestDamagedIndexIsReplaced(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	want := makeImage(t, 1000)
	ref := s.push(t, "app:1", want)
	expectLayers(t, mustResolve(t, ref, o), want)
	dir := filepath.Join(o.CacheDir, "oci")
	if err := os.WriteFile(filepath.Join(dir, "index.json"), []byte(`{"manif`), 0o600); err != nil {
		t.Fatal(err)
	}
	mustResolve(t, ref, o)
	if n := len(readLayoutIndex(t, dir)); n != 1 {
		t.Errorf("%d entries, want 1", n)
	}
}

func TestMissingCache(t *testing.T) {
	c := OpenCache(filepath.Join(t.TempDir(), "none"))
	if bytes, n, err := c.Usage(); bytes != 0 || n != 0 || err != nil {
		t.Errorf("usage %d %d %v", bytes, n, err)
	}
	if freed, err := c.Prune(t.Context(), nil); freed != 0 || err != nil {
		t.Errorf("prune %d %v", freed, err)
	}
	if corrupt, err := c.Verify(t.Context()); len(corrupt) != 0 || err != nil {
		t.Errorf("verify %v %v", corrupt, err)
	}
}

// TestLockWaitEndsWithItsContext resolves while another owner has the cache's lock.
func TestLockWaitEndsWithItsContext(t *testing.T) {
	s, o := newServer(t), testOptions(t)
	ref := s.push(t, "app:1", makeImage(t, 10))
	mustResolve(t, ref, o)
	c := OpenCache(o.CacheDir)
	err := c.dir.withLock(t.Context(), func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		_, err := Resolve(ctx, ref, o)
		return err
	})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}
