package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
)

// newStores returns stores with the image app and the default kernel.
func newStores(t testing.TB) (*store.Store, *kernel.Store) {
	t.Helper()
	root := t.TempDir()
	images, err := store.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	kernels, err := kernel.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	img := &store.Image{
		Schema: store.Schema, ID: digest.Digest("sha256:" + strings.Repeat("a1", 32)), Names: []string{"docker.io/library/app:latest"},
		Config: store.Config{Cmd: []string{"/bin/app"}}, Disk: store.Disk{File: "a.ext4", Size: 3},
	}
	disk := filepath.Join(root, "tmp", "disk")
	if err := os.WriteFile(disk, []byte("ext"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := images.Put(img, disk); err != nil {
		t.Fatal(err)
	}
	addKernel(t, filepath.Join(root, "kernels"))
	return images, kernels
}

// addKernel puts a kernel with the default name into the folder of a store.
func addKernel(t testing.TB, dir string) {
	t.Helper()
	m := kernel.Manifest{Schema: kernel.Schema, Names: []string{kernel.DefaultName}, Release: "6.1.0", Arch: "amd64"}
	content, err := json.Marshal(struct {
		Release, Arch           string
		Kernel, Config, Modules digest.Digest
	}{Release: m.Release, Arch: m.Arch})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	m.ID = digest.Digest("sha256:" + hex.EncodeToString(sum[:]))
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, m.ID.Hex())
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "manifest.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A testDaemon is a daemon that runs until its test ends, and its client.
type testDaemon struct {
	*api.Client
	server *server
	ended  chan error // the result of serveOn
	stop   func()
}

// startDaemon serves f on a socket.
func startDaemon(t *testing.T, f machines, change ...func(*Config)) *testDaemon {
	t.Helper()
	c := Config{Machines: f, Version: "v1-test", DataRoot: "/data", Supervisor: []string{"banger", "supervise"},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
	c.Images, c.Kernels = newStores(t)
	for _, do := range change {
		do(&c)
	}
	c = c.complete()
	listener, lock, err := listen(t.Context(), f.Runtime(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	d := &testDaemon{
		Client: &api.Client{Socket: SocketPath(f.Runtime()), Program: "test"}, server: newServer(c), ended: make(chan error, 1), stop: stop,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.ended <- d.server.serveOn(ctx, listenPeers(listener, c.Connections, c.Log))
	}()
	t.Cleanup(func() {
		stop()
		<-done
		if err := lock.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}
