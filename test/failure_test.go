//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// smallSandbox returns a sandbox on a new file system of size bytes.
func smallSandbox(t *testing.T, size int64) sandbox {
	t.Helper()
	needRoot(t)
	need(t, "mkfs.ext4")
	device := filepath.Join(t.TempDir(), "small")
	f, err := os.Create(device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	tool(t, "mkfs.ext4", "-q", "-F", "-m", "0", device)
	dir := mountDisk(t, device, "loop")
	if err := os.Remove(filepath.Join(dir, "lost+found")); err != nil {
		t.Fatal(err)
	}
	return sandboxIn(t, dir, uint32(os.Geteuid()))
}

// TestB1FullDisk runs out of space in each stage: the download, the unpacking, the writing of the disk.
func TestB1FullDisk(t *testing.T) {
	const mega = 1 << 20
	for _, builder := range builders {
		args := []string{"image", "pull", "--plain-http", "--builder=" + builder, reference("debian:12")}
		undisturbed := newSandbox(t)
		undisturbed.must(t, args...)
		want := undisturbed.inventory(t)
		for _, size := range []int64{40 * mega, 100 * mega, 200 * mega} {
			t.Run(fmt.Sprintf("%s/%dM", builder, size/mega), func(t *testing.T) {
				box := smallSandbox(t, size)
				free := freeBytes(t, box.dir)
				got := box.run(t, args...)
				expectComplaint(t, got, "space", "hint:")
				box.expectNoMore(t, want)
				box.expectNoProcess(t)
				box.expectSpaceBack(t, free)
			})
		}
	}
}

// expectSpaceBack checks that only complete blobs, which a later run can use, take space on the file system.
func (box sandbox) expectSpaceBack(t *testing.T, before int64) {
	t.Helper()
	var kept int64
	for _, path := range box.inventory(t) {
		if strings.HasPrefix(filepath.Join(box.dir, path), box.blobs()+"/") {
			kept += fileSize(t, filepath.Join(box.dir, path))
		}
	}
	const slack = 1 << 20 // folders and small files
	if lost := before - freeBytes(t, box.dir); lost > kept+slack {
		t.Errorf("%d bytes are in use, %d of them are blobs", lost, kept)
	}
}

// TestB1FullDiskAtTheDestination converts to a file system that is too small for the disk.
func TestB1FullDiskAtTheDestination(t *testing.T) {
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			box := newSandbox(t)
			out := smallSandbox(t, 40<<20).path("out")
			got := box.run(t, "convert", "--plain-http", "--builder="+builder, reference("debian:12"), filepath.Join(out, "disk"))
			expectComplaint(t, got, "space", "hint:")
			if entries, err := os.ReadDir(out); err != nil || len(entries) > 0 {
				t.Errorf("left over: %v, %v", entries, err)
			}
		})
	}
}

// TestP3PullsAtOnce pulls the same image in three processes that share a cache and a store.
func TestP3PullsAtOnce(t *testing.T) {
	args := []string{"image", "pull", "--plain-http", reference("debian:12")}
	undisturbed := newSandbox(t)
	undisturbed.must(t, args...)
	box := newSandbox(t)
	outcomes := make([]outcome, 3)
	var wg sync.WaitGroup
	for i := range outcomes {
		wg.Go(func() { outcomes[i] = finish(t, box.command(t.Context(), args...), nil) })
	}
	wg.Wait()
	for _, got := range outcomes {
		if got.code != 0 {
			t.Errorf("exit code %d\n%s", got.code, got.stderr)
		}
	}
	box.expectInventory(t, undisturbed.inventory(t))
}

// TestP4InterruptDuringDownload interrupts a pull during the download of a layer.
func TestP4InterruptDuringDownload(t *testing.T) {
	undisturbed := newSandbox(t)
	undisturbed.must(t, "image", "pull", "--plain-http", reference("debian:12"))
	want := undisturbed.inventory(t)

	proxy := newProxy(t)
	proxy.bytesPerSecond = 4 << 20
	box := newSandbox(t)
	cmd := box.command(t.Context(), "image", "pull", "--plain-http", proxy.reference("debian:12"))
	var pressed time.Time
	got := finish(t, cmd, func(p *os.Process) {
		<-proxy.underway
		pressed = time.Now()
		if err := p.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
	})
	if took := time.Since(pressed); took > time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if got.code == 0 {
		t.Error("an interrupted pull exits with 0")
	}
	box.expectNoMore(t, want)
	box.expectNoProcess(t)
}

// TestB1InterruptDuringBuild interrupts a conversion from a full cache after several delays.
func TestB1InterruptDuringBuild(t *testing.T) {
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			box := newSandbox(t)
			disk := box.convert(t, builder, reference("app:1"))
			if err := os.Remove(disk); err != nil {
				t.Fatal(err)
			}
			want := box.inventory(t)
			args := []string{"convert", "--plain-http", "--builder=" + builder, reference("app:1"), disk}
			for _, delay := range []time.Duration{200 * time.Millisecond, 600 * time.Millisecond, time.Second} {
				start := time.Now()
				got := signalAt(t, box, delay, syscall.SIGINT, args...)
				if took := time.Since(start) - delay; took > time.Second {
					t.Errorf("it took %v to stop", took)
				}
				if got.code == 0 { // the conversion ended before the signal
					if err := os.Remove(disk); err != nil {
						t.Fatal(err)
					}
				}
				box.expectNoProcess(t)
				box.expectNoMore(t, want)
			}
		})
	}
}

// TestP4BrokenDownloadResumes cuts the connection in the middle of each layer. The pull must request the rest of the
// layer, not the whole layer again.
func TestP4BrokenDownloadResumes(t *testing.T) {
	proxy := newProxy(t)
	proxy.cutAfter = 8 << 20
	box := newSandbox(t)
	box.must(t, "image", "pull", "--plain-http", proxy.reference("debian:12"))
	box.expectSoundCache(t)
	if proxy.cuts.Load() == 0 {
		t.Error("no connection was cut: the layer is too small for this test")
	}
	if proxy.resumed.Load() == 0 {
		t.Error("no request asked for the rest of a layer")
	}
}

// TestP3CorruptBlobIsFetchedAgain flips a byte of a cached layer.
func TestP3CorruptBlobIsFetchedAgain(t *testing.T) {
	box := newSandbox(t)
	disk := box.convert(t, builders[0], reference("torture:1"))
	want := diskTree(t, disk)
	entries, err := os.ReadDir(box.blobs())
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d blobs, %v", len(entries), err)
	}
	for _, entry := range entries {
		name := filepath.Join(box.blobs(), entry.Name())
		body, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		body[len(body)/2] ^= 1
		if err := os.Chmod(name, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	box.convert(t, builders[0], reference("torture:1"))
	expectSameTree(t, builders[0], "torture:1", want, diskTree(t, disk))
	box.expectSoundCache(t)
}

// TestP4NoRegistry pulls from a port without a listener.
func TestP4NoRegistry(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	box := newSandbox(t)
	start := time.Now()
	got := box.run(t, "image", "pull", "--plain-http", address+"/demo/app:1")
	expectComplaint(t, got, address+"/demo/app:1", "connection refused")
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v to give up", took)
	}
}

// TestP1NoSuchTag checks that the error names the tag and has a hint.
func TestP1NoSuchTag(t *testing.T) {
	got := newSandbox(t).run(t, "image", "pull", "--plain-http", reference("app:2"))
	expectComplaint(t, got, "demo/app:2", "hint:")
}

// TestB1TooSmallASize checks that the error names the size that is needed, and that nothing is written.
func TestB1TooSmallASize(t *testing.T) {
	for _, builder := range builders {
		t.Run(builder, func(t *testing.T) {
			box := newSandbox(t)
			got := box.run(t, "convert", "--plain-http", "--builder="+builder, "--size=100M", reference("app:1"), box.path("out/disk"))
			expectComplaint(t, got, "too small", "need", "--size")
			if entries, err := os.ReadDir(box.path("out")); err != nil || len(entries) > 0 {
				t.Errorf("left over: %v, %v", entries, err)
			}
		})
	}
}
