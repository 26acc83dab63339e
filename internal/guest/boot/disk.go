package boot

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// diskWait is how long findDisk waits for a disk. Drivers look for their
// devices in parallel with process 1, and an emulating host may be busy.
const diskWait = 20 * time.Second

// A disk is a block device in /sys/block.
type disk struct {
	name     string // such as vda
	size     int64  // bytes
	discards bool   // the device supports discard
}

// findDisk waits for the disk with a serial number. sys is /sys/block.
func findDisk(sys, serial string, wait time.Duration) (*disk, error) {
	const first, longest = time.Millisecond, 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var d *disk
	var others []string
	err := poll.Backoff(ctx, first, longest, func() (found bool, err error) {
		d, others, err = scanDisks(sys, serial)
		return d != nil, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("find disk %s: no such serial number among the %d disks that have one: %s", serial, len(others), strings.Join(others, ", "))
	}
	return d, err
}

// scanDisks returns the disk with a serial number. If there is none, d is nil
// and others lists the disks with other serial numbers.
func scanDisks(sys, serial string) (d *disk, others []string, err error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return nil, nil, fmt.Errorf("find disk %s: %w", serial, err)
	}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(sys, e.Name(), "serial"))
		if errors.Is(err, os.ErrNotExist) {
			continue // not every driver has serial numbers
		}
		if err != nil {
			return nil, nil, fmt.Errorf("find disk %s: %w", serial, err)
		}
		if strings.TrimSpace(string(b)) != serial {
			others = append(others, e.Name())
			continue
		}
		size, err := diskSize(filepath.Join(sys, e.Name()))
		if err != nil {
			return nil, nil, fmt.Errorf("find disk %s: %w", serial, err)
		}
		maxDiscard, err := os.ReadFile(filepath.Join(sys, e.Name(), "queue/discard_max_bytes"))
		if err != nil {
			return nil, nil, fmt.Errorf("find disk %s: %w", serial, err)
		}
		return &disk{e.Name(), size, strings.TrimSpace(string(maxDiscard)) != "0"}, nil, nil
	}
	return nil, others, nil
}

func diskSize(dir string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, "size"))
	if err != nil {
		return 0, err
	}
	const sector = 512 // unit of size in bytes for every device
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/sector {
		return 0, fmt.Errorf("size %q of %s", b, dir)
	}
	return n * sector, nil
}

func (d *disk) path() string { return "/dev/" + d.name }

// mountRoot mounts the root file system and grows it to the size of its disk.
func (m *machine) mountRoot() error {
	d, err := findDisk("/sys/block", guest.RootSerial, diskWait)
	if err != nil {
		return err
	}
	super, err := readSuper(d.path())
	if err != nil {
		return fmt.Errorf("read file system of %s: %w", d.path(), err)
	}
	var flags uintptr
	var options string
	switch {
	case m.config.ReadOnly:
		flags = unix.MS_RDONLY
	case d.discards:
		options = "discard" // frees the space of deleted files on the host
	}
	if err := unix.Mount(d.path(), control.Sysroot, "ext4", flags, options); err != nil {
		return fmt.Errorf("mount root file system from %s: %w", d.path(), err)
	}
	m.root = fmt.Sprintf("%s of %s", d.path(), formatSize(super.size()))
	if m.config.ReadOnly {
		m.root += " read-only"
		if m.config.Overlay {
			m.root += " under an overlay"
			return mountOverlay(control.Sysroot, overlayDir)
		}
		return nil
	}
	if blocks := d.size / super.blockSize; blocks > super.blocks {
		if err := resize(control.Sysroot, blocks); err != nil {
			m.note("root file system not grown to its disk: %v", err)
			return nil
		}
		m.root = fmt.Sprintf("%s grown from %s to %s", d.path(), formatSize(super.size()), formatSize(blocks*super.blockSize))
	}
	return nil
}

func formatSize(n int64) string {
	const mib = 1 << 20
	if n%mib == 0 || n > 100*mib {
		return strconv.FormatInt(n/mib, 10) + " MiB"
	}
	return strconv.FormatInt(n/1024, 10) + " KiB"
}

// A super holds the size of a file system, from ext4's superblock.
type super struct {
	blocks    int64
	blockSize int64 // bytes
}

func (s super) size() int64 { return s.blocks * s.blockSize }

func readSuper(device string) (super, error) {
	f, err := os.Open(device)
	if err != nil {
		return super{}, err
	}
	defer f.Close()
	b := make([]byte, superSize)
	if _, err := f.ReadAt(b, superOffset); err != nil && !errors.Is(err, io.EOF) {
		return super{}, err
	}
	return parseSuper(b)
}

// Offsets and flags of the kernel's Documentation/filesystems/ext4/super.rst.
const (
	superOffset = 1024
	superSize   = 1024
	superMagic  = 0xEF53
	maxLogBlock = 6    // EXT4_MAX_BLOCK_LOG_SIZE is 16; the value in the superblock is relative to 1 << 10
	feature64   = 0x80 // INCOMPAT_64BIT: s_blocks_count_hi is valid
)

func parseSuper(b []byte) (super, error) {
	le := binary.LittleEndian
	if len(b) < superSize || le.Uint16(b[0x38:]) != superMagic {
		return super{}, errors.New("it is not an ext4 file system")
	}
	blocks := uint64(le.Uint32(b[0x4:]))
	if le.Uint32(b[0x60:])&feature64 != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	log := le.Uint32(b[0x18:])
	if log > maxLogBlock || blocks > (1<<63-1)>>(10+log) {
		return super{}, fmt.Errorf("%d blocks of 1024 << %d bytes", blocks, log)
	}
	return super{int64(blocks), 1024 << log}, nil
}

// resizeFS is EXT4_IOC_RESIZE_FS of fs/ext4/ext4.h, _IOW('f', 16, __u64).
const resizeFS = 0x40086610

// resize grows the mounted file system to a number of blocks. The kernel leaves
// out a last block group that would be too small.
func resize(mount string, blocks int64) error {
	f, err := os.Open(mount)
	if err != nil {
		return err
	}
	defer f.Close()
	n := uint64(blocks)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), resizeFS, uintptr(unsafe.Pointer(&n))); errno != 0 {
		return errno
	}
	return nil
}
