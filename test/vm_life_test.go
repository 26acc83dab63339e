//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// TestR1Systemd boots an image with its own init. The init must reach its target, and the machine must answer exec.
func TestR1Systemd(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	cmd := box.boot(t, "systemd", "--rm", "--memory=512M", reference("systemd:1"))
	eventually(t, bootLimit, "systemd reaches multi-user.target", func() bool {
		got := box.run(t, "exec", "systemd", "systemctl", "is-active", "multi-user.target")
		return strings.TrimSpace(got.stdout) == "active"
	})
	got := box.must(t, "exec", "systemd", "sh", "-c", "cat /proc/1/comm; systemctl --failed --no-legend --plain")
	if got.stdout != "systemd\n" {
		t.Errorf("process 1, then the units that failed:\n%s", got.stdout)
	}
	if got := box.run(t, "exec", "systemd", "systemctl", "poweroff"); got.code != 0 && got.code != 125 {
		t.Errorf("poweroff: %+v", got)
	}
	eventually(t, bootLimit, "the machine ends", func() bool {
		return !strings.Contains(box.run(t, "ps").stdout, "systemd")
	})
	box.expectNoProcess(t)
	// The machine runs nothing besides the image's init, so its console is the output.
	if output, ok := cmd.Stdout.(*lockedBuffer); !ok || !strings.Contains(output.String(), "init image") {
		t.Errorf("the console was not shown: %v", cmd.Stdout)
	}
}

// consoleTail returns the ends of the console logs of the sandbox's machines.
func (box sandbox) consoleTail() string {
	var out strings.Builder
	logs, _ := filepath.Glob(box.path("data", "banger", "machines", "*", "console.log"))
	for _, path := range logs {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		var console []byte
		for line := range bytes.Lines(data) {
			var piece struct {
				Data  string `json:"d"`
				Bytes []byte `json:"b"` // if it is not UTF-8
			}
			if json.Unmarshal(line, &piece) == nil { // the last line may be incomplete
				console = append(append(console, piece.Data...), piece.Bytes...)
			}
		}
		fmt.Fprintf(&out, "%s\n", console[max(0, len(console)-4096):])
	}
	return out.String()
}

// staticImage writes an OCI layout of an image with a single file: banger, a static program.
func staticImage(t *testing.T, dir string) string {
	t.Helper()
	program, err := os.ReadFile(suite.banger)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := tw.WriteHeader(&tar.Header{Name: "banger", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write(program); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), l)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH, Config: v1.Config{Entrypoint: []string{"/banger"}, Cmd: []string{"version"}},
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(t, img)},
	})
	if err != nil {
		t.Fatal(err)
	}
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": "static"})); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir + ":static"
}

func diffIDs(t *testing.T, img v1.Image) []v1.Hash {
	t.Helper()
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return c.RootFS.DiffIDs
}

// TestR1Distroless runs an image without a shell, a C library and folders.
func TestR1Distroless(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	dir := box.path("out", "static")
	source := staticImage(t, dir)
	tool(t, "chown", "-R", strconv.Itoa(int(box.uid)), dir)
	box.must(t, "image", "import", "--name", "static:1", source)
	got := box.run(t, "run", "--rm", "static:1")
	expectCode(t, got, 0)
	if !strings.HasPrefix(got.stdout, "banger ") {
		t.Errorf("stdout = %q", got.stdout)
	}
	// The mount points that the image lacks are on an overlay.
	got = box.run(t, "run", "-v", "--rm", "--read-only", "static:1")
	expectCode(t, got, 0)
	if !strings.HasPrefix(got.stdout, "banger ") || !strings.Contains(got.stderr, "under an overlay") {
		t.Errorf("read-only: %+v", got)
	}
	// A disk of the smallest size grows too.
	got = box.run(t, "run", "-v", "--rm", "--disk-size=20G", "static:1")
	if !strings.Contains(got.stderr, "grown from 64 MiB to 20480 MiB") {
		t.Errorf("stderr = %q", got.stderr)
	}
	got = box.run(t, "run", "--rm", "--entrypoint=sh", "static:1", "-c", "true")
	expectCode(t, got, 127)
	if !strings.Contains(got.stderr, "sh: no such file in the image") {
		t.Errorf("stderr = %q", got.stderr)
	}
}

// monitorOf returns the process number of a machine's QEMU, which has a mark in its environment.
func (box sandbox) monitorOf(t *testing.T, name string) int {
	t.Helper()
	id := strings.TrimSpace(box.must(t, "inspect", "--format", "{{.ID}}", name).stdout)
	mark := regexp.MustCompile("(^|\x00)BANGER_MACHINE=" + id + "[^\x00/]*/vmm\x00")
	environments, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range environments {
		data, err := os.ReadFile(path) // the process may have ended
		if err == nil && mark.Match(data) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("machine %s has no QEMU", name)
	return 0
}

// load is a script that keeps a file system busy: it copies and deletes trees, writes many files in one directory, makes
// holes and renames.
const load = `set -e
mkdir -p /load && cd /load
touch /load/started
n=0
while :; do
	n=$((n + 1)); d=d$((n % 4)); rm -rf $d; mkdir $d; cp -a /etc /var/lib/dpkg $d
	mkdir -p many; i=0; while [ $i -lt 200 ]; do echo $n >many/$n.$i; i=$((i + 1)); done
	fallocate -l 40M big.$((n % 3)); rm -f many/$((n - 2)).*
	mv $d moved.$n; rm -rf moved.$((n - 1)); touch round.$n
done`

// TestB1DiskInTheGuest grows a machine's disk to 20 GiB, kills the monitor while the disk is busy, boots the machine
// again, which replays the journal, and checks the disk with e2fsck.
func TestB1DiskInTheGuest(t *testing.T) {
	need(t, "e2fsck", "qemu-img")
	box := sharedUnprivilegedSandbox(t)
	box.boot(t, "busy", "--disk-size=20G", reference("debian:12"), "sh", "-c", load)
	eventually(t, bootLimit, "the load goes round", func() bool {
		return box.run(t, "exec", "busy", "test", "-e", "/load/round.2").code == 0
	})
	got := box.must(t, "exec", "busy", "sh", "-c", "df -B1G --output=size / | tail -n 1")
	if size := strings.TrimSpace(got.stdout); size != "19" && size != "20" {
		t.Errorf("the file system has %s GiB, want 19 or 20", size)
	}
	if err := syscall.Kill(box.monitorOf(t, "busy"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "the machine is seen to have ended", func() bool {
		return strings.Contains(box.run(t, "ps", "-a").stdout, "Exited (125)")
	})
	disk := box.diskOf(t, "busy")
	// A journal that is not empty has a start block. needs_recovery is set on every disk that is mounted.
	start := regexp.MustCompile(`(?m)^Journal start:\s+[1-9]`)
	if journal := tool(t, "dumpe2fs", "-h", box.flat(t, disk, "torn")); !start.MatchString(journal) {
		t.Error("the journal is empty after the kill: the test cannot fail")
	}
	// The next boot replays the journal and runs the load again. Then the machine is stopped regularly.
	box.must(t, "start", "busy")
	eventually(t, bootLimit, "the load goes on", func() bool {
		return box.run(t, "exec", "busy", "test", "-e", "/load/round.2").code == 0
	})
	box.must(t, "stop", "busy")
	if got := box.must(t, "wait", "busy"); got.stdout != "143\n" {
		t.Errorf("stopped by SIGTERM: %q", got.stdout)
	}
	if got := box.must(t, "inspect", "busy"); !strings.Contains(got.stdout, `"state": "exited"`) || !strings.Contains(got.stdout, `"exitCode": 143`) {
		t.Errorf("inspect: %s", got.stdout)
	}
	flat := box.flat(t, disk, "whole")
	tool(t, "e2fsck", "-fn", flat)
	if state := tool(t, "dumpe2fs", "-h", flat); !strings.Contains(state, "Filesystem state:         clean") {
		t.Errorf("the file system was not unmounted:\n%s", state)
	}
}

// diskOf returns the path of a machine's disk. The sandbox must have no other machine.
func (box sandbox) diskOf(t *testing.T, name string) string {
	t.Helper()
	id := strings.Fields(box.must(t, "ps", "-aq").stdout)
	if len(id) != 1 {
		t.Fatalf("machines: %q, want %s alone", id, name)
	}
	found, err := filepath.Glob(box.path("data", "banger", "machines", id[0], "disk.*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("disks: %q, %v", found, err)
	}
	return found[0]
}

// flat writes the content of a machine's disk to a raw file and returns its path.
func (box sandbox) flat(t *testing.T, disk, name string) string {
	t.Helper()
	out := box.path("out", name+".raw")
	tool(t, "qemu-img", "convert", "-O", "raw", disk, out)
	t.Cleanup(func() { os.Remove(out) })
	return out
}

// TestR1KillRun kills the CLI at random moments of a run. Either no machine exists afterwards, or it runs on and can be
// removed without leftovers.
func TestR1KillRun(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	args := []string{"run", "--rm", reference("debian:12"), "sleep", "2"}
	start := time.Now()
	box.must(t, args...)
	took := time.Since(start)
	want := box.inventory(t)
	t.Logf("seed: go test -crash.seed=%d", *crashSeed)
	random := rand.New(rand.NewPCG(*crashSeed, 2))
	killed := 0
	for i := range moments {
		moment := time.Duration((float64(i) + random.Float64()) / moments * float64(took))
		if got := signalAt(t, box, moment, os.Kill, args...); got.code == -1 {
			killed++
		}
		eventually(t, bootLimit, "no machine is left", func() bool {
			ids := strings.Fields(box.must(t, "ps", "-aq").stdout)
			for _, id := range ids {
				box.run(t, "rm", "-f", id) // the machine may be removing itself
			}
			return len(ids) == 0
		})
		box.expectNoProcess(t)
		box.expectInventory(t, want)
		if t.Failed() {
			t.Fatalf("after a kill at %v of %v", moment, took)
		}
	}
	if killed < moments/2 {
		t.Errorf("%d of %d runs were killed: the moments miss the run", killed, moments)
	}
}

// TestR1NeverWritesTheImage runs a machine that writes to its disk, and checks that the image's disk is unchanged.
func TestR1NeverWritesTheImage(t *testing.T) {
	box := sharedUnprivilegedSandbox(t)
	path := filepath.Join(box.path("data", "banger", "disks"))
	sum := func() string {
		out, err := exec.Command("sh", "-c", "cd "+path+" && sha256sum * && stat -c '%n %Y' *").Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := sum()
	box.must(t, "run", "--rm", reference("debian:12"), "sh", "-c", "echo x >>/etc/passwd; rm -rf /usr/share; sync")
	if after := sum(); after != before {
		t.Errorf("image disks before:\n%s\nafter:\n%s", before, after)
	}
}

// TestR1CloneIsInstant creates machines on file systems that share extents, where the disk is a clone of the image's.
func TestR1CloneIsInstant(t *testing.T) {
	needRoot(t)
	need(t, "mkfs.btrfs", "mkfs.xfs")
	for _, kind := range []string{"btrfs", "xfs"} {
		t.Run(kind, func(t *testing.T) {
			box := sharedSandbox(t, 0)
			device := filepath.Join(t.TempDir(), "device")
			f, err := os.Create(device)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(4 << 30); err != nil {
				t.Fatal(err)
			}
			tool(t, "mkfs."+kind, "-q", device)
			reflink := sandboxIn(t, mountDisk(t, device, "loop"), 0).closedWith(t)
			tool(t, "cp", "-a", box.path("data", "banger"), reflink.path("data"))
			got := reflink.run(t, "run", "--name", "clone", reference("debian:12"), "sh", "-c", "echo written >/srv/x && sync")
			expectCode(t, got, 0)
			if disk := reflink.diskOf(t, "clone"); !strings.HasSuffix(disk, "disk.raw") {
				t.Errorf("disk = %s, want one that shares extents", disk)
			}
			tool(t, "e2fsck", "-fn", reflink.diskOf(t, "clone"))
			if got := tool(t, "debugfs", "-R", "cat /srv/x", reflink.diskOf(t, "clone")); !strings.Contains(got, "written") {
				t.Errorf("the machine's disk has %q", got)
			}
		})
	}
}

// TestR1GuestFailureIsReported damages a machine's disk. The start must fail at once, with the cause in its error.
func TestR1GuestFailureIsReported(t *testing.T) {
	need(t, "qemu-io")
	box := sharedUnprivilegedSandbox(t)
	box.must(t, "run", "--name", "broken", reference("debian:12"), "true")
	t.Cleanup(func() { box.remove(t, "broken") })
	// The superblock of the machine's own disk, not of the image's.
	disk := box.diskOf(t, "broken")
	tool(t, "qemu-io", "-f", strings.TrimPrefix(filepath.Ext(disk), "."), "-c", "write -P 0 0 8k", disk)
	start := time.Now()
	got := box.run(t, "start", "broken")
	expectCode(t, got, 1)
	if !strings.Contains(got.stderr, "machine ended: ") || !strings.Contains(got.stderr, "not an ext4 file system") {
		t.Errorf("stderr = %q", got.stderr)
	}
	if took := time.Since(start); took > bootLimit {
		t.Errorf("the error took %v", took)
	}
	box.expectNoProcess(t)
}
