package write_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestKernelWrites mounts the disk for writing, changes many files and checks the
// disk with e2fsck.
func TestKernelWrites(t *testing.T) {
	o := ext4test.Options()
	o.Size = 512 * mib
	disk := ext4test.EdgeCases(t).Write(o)
	mnt := mount(t, disk, "rw")
	load := exec.CommandContext(t.Context(), "sh", "-euc", `
		mkdir copy && cp -a bin crowd implied order sparse5 copy/
		rm -r crowd sparse340 xattr65536
		fallocate -l 100M space
		mkdir many && cd many && seq 10000 | xargs touch
		cd ../copy/crowd && seq 10000 | xargs touch
		rm -r ../../implied`)
	load.Dir = mnt
	out, err := load.CombinedOutput()
	if err != nil {
		t.Errorf("load: %v: %s", err, out)
	}
	if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
		t.Fatalf("umount: %v: %s", err, out)
	}
	ext4test.E2Tool(t, 0, "e2fsck", "-fn", disk)
}

// TestMetadataBytes compares the bytes that a disk takes of the host with the
// sum of MetadataBytes and the bodies.
func TestMetadataBytes(t *testing.T) {
	for name, img := range map[string]*ext4test.Image{"empty": ext4test.NewImage(t), "edge cases": ext4test.EdgeCases(t)} {
		o := ext4test.Options()
		l, err := write.Plan(img.Tree(), o)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		disk := img.Write(o)
		if err := unix.Stat(disk, &st); err != nil {
			t.Fatal(err)
		}
		bodies := int64(0)
		for id := tree.Root; id < img.Tree().EndID(); id++ {
			if in := img.Tree().Inode(id); in.Type == tree.Regular && in.Body.Runs == nil {
				bodies += (in.Size + 4095) / 4096 * 4096
			} else if in.Type == tree.Regular {
				for _, r := range in.Body.Runs {
					bodies += (r.Length + 4095) / 4096 * 4096
				}
			}
		}
		const slack = 1 << 20 // bytes: l.metaMax is an upper bound, and the host rounds too
		taken, want := st.Blocks*512, l.MetadataBytes()+bodies
		if taken > want || taken < want-slack {
			t.Errorf("%s: the disk takes %d bytes of the host, %d were expected", name, taken, want)
		}
	}
}

func TestWriteStopsWithItsContext(t *testing.T) {
	img := ext4test.EdgeCases(t)
	l, err := write.Plan(img.Tree(), ext4test.Options())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Write(ctx, f, img.Readers(nil), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestOverheadEqualsTheKernels compares the overhead in the superblock, the blocks
// that no file can use, with the overhead that the kernel computes if the
// superblock has none.
func TestOverheadEqualsTheKernels(t *testing.T) {
	for _, size := range []int64{write.MinSize, 16*128*mib + 600*4096, 20 << 30} {
		o := ext4test.Options()
		o.Size = size
		disk := ext4test.NewImage(t).Write(o)
		stored := usableBlocks(t, disk)
		ext4test.E2Tool(t, 0, "debugfs", "-w", "-R", "ssv overhead_clusters 0", disk)
		if out := ext4test.E2Tool(t, 0, "debugfs", "-R", "stats -h", disk); strings.Contains(out, "Overhead clusters") {
			t.Fatalf("debugfs did not clear the overhead:\n%s", out)
		}
		if counted := usableBlocks(t, disk); stored != counted {
			t.Errorf("%d MiB: %d blocks usable, the kernel counts %d", size/mib, stored, counted)
		}
	}
}

func usableBlocks(t *testing.T, disk string) uint64 {
	t.Helper()
	mnt := mount(t, disk, "ro,noload")
	var st unix.Statfs_t
	if err := unix.Statfs(mnt, &st); err != nil {
		t.Fatal(err)
	}
	if err := unix.Unmount(mnt, 0); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}
