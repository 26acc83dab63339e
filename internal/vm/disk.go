package vm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/vmm"
	"golang.org/x/sys/unix"
)

// Driver is how a machine's disk comes from the image's.
type Driver string

// The drivers, in the order in which they are tried.
const (
	Reflink Driver = "reflink" // shares the extents of the image's disk
	Overlay Driver = "overlay" // a QCOW2 file over it
	Shared  Driver = "shared"  // the image's disk itself, read-only
)

// Disk is the root disk of a machine, in its data folder.
type Disk struct {
	Driver Driver `json:"driver"`
	File   string `json:"file"` // name in the machine's folder
	Size   int64  `json:"size"` // bytes, as the guest sees it
}

// Names in a machine's folder.
const (
	baseFile    = "base.ext4" // a second name of the image's disk, which keeps it while the machine is there
	cloneFile   = "disk.raw"
	overlayFile = "disk.qcow2"
)

// ErrNoOverlay says that qemu-img, which makes overlays, is not installed.
var ErrNoOverlay = errors.New("qemu-img not found")

// cloneDisk makes a machine's disk in the folder dir from the image's disk,
// size bytes large or as large as the image's where size is 0. It takes the
// same short time whatever the size. The image's disk is not written.
func cloneDisk(ctx context.Context, image, dir string, size int64, readOnly bool) (Disk, error) {
	base := filepath.Join(dir, baseFile)
	if err := os.Link(image, base); err != nil {
		return Disk{}, fmt.Errorf("clone disk: %w", err)
	}
	info, err := os.Stat(base)
	if err != nil {
		return Disk{}, fmt.Errorf("clone disk: %w", err)
	}
	if size == 0 {
		size = info.Size()
	}
	if size < info.Size() {
		return Disk{}, inputf("disk size of %d MiB: the image's disk has %d MiB", size>>20, info.Size()>>20)
	}
	if readOnly {
		return Disk{Shared, baseFile, info.Size()}, nil
	}
	clone := filepath.Join(dir, cloneFile)
	switch err := reflink(base, clone, size); {
	case err == nil:
		return Disk{Reflink, cloneFile, size}, os.Remove(base)
	case !errors.Is(err, errors.ErrUnsupported):
		return Disk{}, fmt.Errorf("clone disk: %w", err)
	}
	if err := overlay(ctx, dir, size); err != nil {
		return Disk{}, err
	}
	return Disk{Overlay, overlayFile, size}, nil
}

// reflink makes to a copy of from that shares its extents (ioctl_ficlone(2)).
// The error is errors.ErrUnsupported where the file system cannot.
func reflink(from, to string, size int64) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, dst.Close()); err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	switch err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())); err {
	case nil:
		return dst.Truncate(size)
	case unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL:
		return errors.ErrUnsupported
	default:
		return fmt.Errorf("share extents: %w", err)
	}
}

// overlay makes a QCOW2 file over the base in dir. The base's name is
// recorded relative to the overlay, and QEMU is told both.
func overlay(ctx context.Context, dir string, size int64) error {
	tool, err := exec.LookPath("qemu-img")
	if err != nil {
		return fmt.Errorf("clone disk: %w", ErrNoOverlay)
	}
	cmd := exec.CommandContext(ctx, tool, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", baseFile,
		overlayFile, strconv.FormatInt(size, 10))
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("clone disk: qemu-img: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return os.Chmod(filepath.Join(dir, overlayFile), 0o600)
}

// device is the disk as the monitor takes it. dir is the machine's folder.
func (d Disk) device(dir string) vmm.Disk {
	dev := vmm.Disk{Serial: guest.RootSerial, Path: filepath.Join(dir, d.File), Format: vmm.Raw, ReadOnly: d.Driver == Shared}
	if d.Driver == Overlay {
		dev.Format, dev.Backing = vmm.QCOW2, filepath.Join(dir, baseFile)
	}
	return dev
}
