// Package disk makes the root disk of a machine from the disk of its image, with
// the cheapest driver that works on the host, and attaches it when the machine
// starts. It never writes to the disk of the image.
package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/sparse"
	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
)

// Disk is the root disk of a machine, in its data folder.
type Disk struct {
	Driver spec.Driver `json:"driver"`
	File   string      `json:"file"`          // name in the machine's folder
	Size   int64       `json:"size"`          // bytes, as the guest sees it
	Why    string      `json:"why,omitempty"` // why the disk has this driver
}

// Names in a machine's folder.
const (
	baseFile    = "base.ext4" // a hard link of the image's disk, which keeps it after the image is removed
	rawFile     = "disk.raw"
	overlayFile = "disk.qcow2"
	cowFile     = "disk.cow" // the changes, for a device mapper snapshot
)

// files returns the names of the files of a disk with the driver d. The last is
// the Disk's File.
func files(d spec.Driver) []string {
	switch d {
	case spec.Reflink, spec.Copy:
		return []string{rawFile}
	case spec.Overlay:
		return []string{baseFile, overlayFile}
	case spec.DM:
		return []string{baseFile, cowFile}
	case spec.Shared:
		return []string{baseFile}
	}
	return nil
}

// Options describe a machine's disk. The zero value selects the size of the
// image's disk and the cheapest driver that works.
type Options struct {
	Size     int64 // bytes; 0: the image's
	ReadOnly bool  // use the image's disk itself and ignore Driver
	Driver   spec.Driver
}

// Make makes a machine's disk in its folder dir from the image's disk. It takes
// the same short time for every size, unless the driver is Copy. If it fails, it
// leaves no file of the disk. The error is a *spec.InputError if no disk can be
// as o asks, a *DriverError if the driver does not work on this host, and
// ErrNoSpace if the file system has too little space.
func Make(ctx context.Context, mk resource.Maker, image, dir string, o Options) (Disk, error) {
	p, err := newPlan(image, dir, o)
	if err != nil {
		return Disk{}, err
	}
	defer p.close()
	var paths []string
	for _, name := range files(p.disk.Driver) {
		paths = append(paths, filepath.Join(dir, name))
	}
	err = mk.Files(ctx, ledger.Disk, paths, func() error { return p.make(ctx) })
	if errors.Is(err, syscall.ENOSPC) && !errors.Is(err, ErrNoSpace) { // the ledger could not be written
		err = fmt.Errorf("%w: %w", p.explainNoSpace(err), err)
	}
	if err != nil {
		return Disk{}, err
	}
	return p.disk, nil
}

// A plan describes a disk whose driver works and for which there is space.
type plan struct {
	disk  Disk
	dir   string
	image *os.File
	clone *os.File // the disk of Reflink, which has no name yet
	need  int64    // bytes that the disk and its machine take at least
}

// newPlan selects the driver and checks the size and the free space. The caller
// closes the plan.
func newPlan(image, dir string, o Options) (_ *plan, err error) {
	p := &plan{dir: dir, need: spaceReserve}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.image, err = os.Open(image); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	info, err := p.image.Stat()
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	p.disk.Size = spec.OrDefault(o.Size, info.Size())
	if err := checkSize(info, o); err != nil {
		return nil, err
	}
	if err := checkSpace(dir, p.need); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	if o.ReadOnly {
		p.disk.Driver, p.disk.Why = spec.Shared, "a read-only machine needs no disk of its own"
	} else if err := p.selectDriver(o.Driver); err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	files := files(p.disk.Driver)
	p.disk.File = files[len(files)-1]
	if p.disk.Driver == spec.Copy {
		p.need += Allocated(image)
		err = checkSpace(dir, p.need)
	}
	if err != nil {
		return nil, fmt.Errorf("make disk: %w", err)
	}
	return p, nil
}

// checkSize checks o.Size against the size of the image's disk.
func checkSize(image fs.FileInfo, o Options) error {
	switch {
	case image.Size()%resource.SectorSize != 0:
		return fmt.Errorf("make disk: the image's disk has %d bytes: want a multiple of %d", image.Size(), resource.SectorSize)
	case o.Size == 0:
		return nil
	case o.ReadOnly:
		return spec.Errorf("a read-only disk cannot have another size")
	case o.Size < image.Size():
		return spec.Errorf("disk size of %s: the image's disk has %s", spec.Size(o.Size), spec.Size(image.Size()))
	case o.Size%resource.SectorSize != 0:
		return spec.Errorf("disk size of %d bytes: want a multiple of %d", o.Size, resource.SectorSize)
	}
	return nil
}

func (p *plan) close() {
	for _, f := range []*os.File{p.image, p.clone} {
		if f != nil {
			f.Close()
		}
	}
}

// make makes the files of the disk. After an error the caller removes them.
func (p *plan) make(ctx context.Context) (err error) {
	disk := filepath.Join(p.dir, p.disk.File)
	switch p.disk.Driver {
	case spec.Reflink:
		if err = p.clone.Truncate(p.disk.Size); err == nil {
			err = linkOpen(p.clone, disk)
		}
	case spec.Copy:
		err = copyDisk(ctx, p.image, disk, p.disk.Size)
	default:
		err = linkOpen(p.image, filepath.Join(p.dir, baseFile))
	}
	if err == nil && p.disk.Driver == spec.Overlay {
		err = overlay(ctx, p.dir, p.disk.Size)
	}
	if err == nil && p.disk.Driver == spec.DM {
		err = emptyFile(disk, resource.SnapshotSpace(p.disk.Size))
	}
	return p.explainNoSpace(err)
}

// linkOpen gives an open file the name path. It works for a file that has no
// name; see O_TMPFILE in open(2).
func linkOpen(f *os.File, path string) error {
	open := "/proc/self/fd/" + strconv.Itoa(int(f.Fd()))
	if err := unix.Linkat(unix.AT_FDCWD, open, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: f.Name(), New: path, Err: err}
	}
	return nil
}

// reflink returns a file without a name, in the folder dir, that shares its
// extents with image (ioctl_ficlone(2)). The error is errors.ErrUnsupported if
// the file system cannot share extents.
func reflink(image *os.File, dir string) (*os.File, error) {
	f, err := openUnnamed(dir)
	if err != nil {
		return nil, err
	}
	switch err := unix.IoctlFileClone(int(f.Fd()), int(image.Fd())); err {
	case nil:
		return f, nil
	case unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.EINVAL:
		f.Close()
		return nil, errors.ErrUnsupported
	default:
		f.Close()
		return nil, fmt.Errorf("share extents: %w", err)
	}
}

// openUnnamed makes a file in dir that has no name. The kernel removes it when it
// is closed, unless linkOpen has named it. The error is errors.ErrUnsupported if
// the file system or the kernel has no such files.
func openUnnamed(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|os.O_RDWR, 0o600)
	// EOPNOTSUPP is the error of the file system, EISDIR of the kernel; see open(2).
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return nil, errors.ErrUnsupported
	}
	return f, err
}

// copyDisk copies the image's disk without its holes. It does not sync the copy:
// a crash of the host may lose writes of the guest, too.
func copyDisk(ctx context.Context, image *os.File, path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := sparse.Copy(ctx, f, image); err != nil {
		return err
	}
	return f.Truncate(size)
}

// emptyFile makes a file of the given size that is one hole.
func emptyFile(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// overlayMin is larger than an empty QCOW2 file, in bytes.
const overlayMin = 1 << 20

// overlay makes a QCOW2 file over the base in dir. The file has the base's name
// without a folder. The monitor is given the paths of both.
func overlay(ctx context.Context, dir string, size int64) error {
	tool, err := exec.LookPath(imageTool)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, tool, "create", "-q", "-f", "qcow2", "-F", "raw", "-b", baseFile,
		overlayFile, strconv.FormatInt(size, 10))
	cmd.Dir = dir
	cmd.Env = []string{"LC_ALL=C"}
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The tool's exit code does not distinguish a full disk.
		if free, statErr := FreeSpace(dir); statErr == nil && free < overlayMin {
			err = syscall.ENOSPC
		}
		return fmt.Errorf("%s: %w: %s", imageTool, err, strings.TrimSpace(string(out)))
	}
	return os.Chmod(filepath.Join(dir, overlayFile), 0o600)
}

// Attach makes the devices that the disk needs while its machine runs, and
// returns the disk as the monitor takes it. dir is the machine's folder. mk's
// ledger lists the devices, after an error too, and its Teardown removes them.
// The data that the guest has written stays in the folder.
func (d Disk) Attach(ctx context.Context, mk resource.Maker, dir string) (vmm.Disk, error) {
	dev, err := d.monitorDisk(dir)
	if err == nil && d.Driver == spec.DM {
		dev.Device = true
		dev.Path, err = d.snapshot(ctx, mk, dir)
	}
	if err != nil {
		return vmm.Disk{}, fmt.Errorf("attach disk: %w", err)
	}
	return dev, nil
}

// monitorDisk returns the disk as the monitor takes it. For DM it is not complete.
func (d Disk) monitorDisk(dir string) (vmm.Disk, error) {
	// A damaged record must not let a guest write the image's own disk.
	if files := files(d.Driver); len(files) == 0 || files[len(files)-1] != d.File {
		return vmm.Disk{}, fmt.Errorf("file %q is not one of disk driver %q", d.File, d.Driver)
	}
	dev := vmm.Disk{Serial: guest.RootSerial, Path: filepath.Join(dir, d.File), Format: vmm.Raw, ReadOnly: d.Driver == spec.Shared}
	if d.Driver == spec.Overlay {
		dev.Format, dev.Backing = vmm.QCOW2, filepath.Join(dir, baseFile)
	}
	return dev, nil
}

// snapshot makes a device mapper snapshot of the image's disk, whose changes go
// to cowFile. It returns the path of the snapshot's device.
func (d Disk) snapshot(ctx context.Context, mk resource.Maker, dir string) (string, error) {
	info, err := os.Stat(filepath.Join(dir, baseFile))
	if err != nil {
		return "", err
	}
	// The kernel detaches the loop devices when the devices above them are removed.
	base, err := mk.Loop(ctx, "base", filepath.Join(dir, baseFile), resource.LoopOptions{ReadOnly: true, AutoClear: true})
	if err != nil {
		return "", err
	}
	defer base.Close()
	cow, err := mk.Loop(ctx, "cow", filepath.Join(dir, cowFile), resource.LoopOptions{AutoClear: true})
	if err != nil {
		return "", err
	}
	defer cow.Close()
	origin := base.Name()
	sectors, total := uint64(info.Size()/resource.SectorSize), uint64(d.Size/resource.SectorSize)
	if total > sectors {
		origin, err = mk.Device(ctx, "origin", resource.DeviceOptions{ReadOnly: true}, resource.EnlargedTargets(origin, sectors, total)...)
		if err != nil {
			return "", err
		}
	}
	return mk.Device(ctx, "root", resource.DeviceOptions{}, resource.SnapshotTarget(origin, cow.Name(), total))
}
