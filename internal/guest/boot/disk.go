package boot

import (
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

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// diskWait is how long a disk may take to appear: drivers look for theirs
// beside process 1 and a host that emulates may be busy.
const diskWait = 20 * time.Second

// A disk is a block device as /sys/block shows it.
type disk struct {
	name     string // vda
	size     int64  // bytes
	discards bool   // it takes word of what is in use no more
}

// findDisk waits for the disk with a serial number. sys is /sys/block.
func findDisk(sys, serial string, wait time.Duration) (*disk, error) {
	const first, slowest = time.Millisecond, 50 * time.Millisecond
	deadline := time.Now().Add(wait)
	for pause := first; ; pause = min(pause*2, slowest) {
		d, have, err := lookDisk(sys, serial)
		if d != nil || err != nil {
			return d, err
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("find disk %s: not among the %d there are: %s", serial, len(have), strings.Join(have, ", "))
		}
		<-time.After(pause)
	}
}

// lookDisk returns the disk, or nil and what there is instead.
func lookDisk(sys, serial string) (d *disk, have []string, err error) {
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
			have = append(have, e.Name())
			continue
		}
		size, err := diskSize(filepath.Join(sys, e.Name()))
		if err != nil {
			return nil, nil, fmt.Errorf("find disk %s: %w", serial, err)
		}
		most, err := os.ReadFile(filepath.Join(sys, e.Name(), "queue/discard_max_bytes"))
		if err != nil {
			return nil, nil, fmt.Errorf("find disk %s: %w", serial, err)
		}
		return &disk{e.Name(), size, strings.TrimSpace(string(most)) != "0"}, nil, nil
	}
	return nil, have, nil
}

func diskSize(dir string) (int64, error) {
	b, err := os.ReadFile(filepath.Join(dir, "size"))
	if err != nil {
		return 0, err
	}
	const sector = 512 // bytes, whatever the device's are
	n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || n < 0 || n > (1<<63-1)/sector {
		return 0, fmt.Errorf("size %q of %s", b, dir)
	}
	return n * sector, nil
}

func (d *disk) path() string { return "/dev/" + d.name }

// mountRoot mounts the root file system and grows it to its disk.
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
		options = "discard" // the space of what is deleted is the host's again
	}
	if err := unix.Mount(d.path(), control.Sysroot, "ext4", flags, options); err != nil {
		return fmt.Errorf("mount root file system from %s: %w", d.path(), err)
	}
	m.root = fmt.Sprintf("%s of %s", d.path(), inWords(super.size()))
	if m.config.ReadOnly {
		m.root += " read-only"
		return nil
	}
	if blocks := d.size / super.blockSize; blocks > super.blocks {
		if err := resize(control.Sysroot, blocks); err != nil {
			m.note("root file system not grown to its disk: %v", err)
			return nil
		}
		m.root = fmt.Sprintf("%s grown from %s to %s", d.path(), inWords(super.size()), inWords(blocks*super.blockSize))
	}
	return nil
}

func inWords(n int64) string {
	const mib = 1 << 20
	if n%mib == 0 || n > 100*mib {
		return strconv.FormatInt(n/mib, 10) + " MiB"
	}
	return strconv.FormatInt(n/1024, 10) + " KiB"
}

// A super is what ext4's superblock says of the size.
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

// Of the kernel's Documentation/filesystems/ext4/super.rst.
const (
	superOffset = 1024
	superSize   = 1024
	superMagic  = 0xEF53
	maxLogBlock = 6    // EXT4_MAX_BLOCK_LOG_SIZE is 16, and blocks begin at 1 << 10
	feature64   = 0x80 // INCOMPAT_64BIT: the high half of s_blocks_count counts
)

func parseSuper(b []byte) (super, error) {
	le := binary.LittleEndian
	if len(b) < superSize || le.Uint16(b[0x38:]) != superMagic {
		return super{}, errors.New("it is no ext4")
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

// resize grows the mounted file system to a number of blocks. The kernel
// leaves out a last group that would be too small.
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
