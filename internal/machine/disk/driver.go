package disk

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/spec"
)

// drivers returns the drivers that a user can select.
func drivers() []spec.Driver {
	return []spec.Driver{spec.Reflink, spec.Overlay, spec.DM, spec.Copy}
}

// A DriverError reports a driver that does not work on this host.
type DriverError struct {
	Driver spec.Driver
	Why    string // the reason, then advice in parentheses if there is some
}

func (e *DriverError) Error() string {
	return fmt.Sprintf("disk driver %s does not work here: %s", e.Driver, e.Why)
}

// imageTool makes QCOW2 files.
const imageTool = "qemu-img"

// selectDriver sets the driver of the disk: want, or the first that works if want
// is "" or Auto.
func (p *plan) selectDriver(want spec.Driver) error {
	if want != "" && want != spec.Auto {
		p.disk.Driver, p.disk.Why = want, "as asked for"
		_, err := p.try(want)
		return err
	}
	var reasons []string // why the earlier drivers do not work
	for _, d := range []spec.Driver{spec.Reflink, spec.Overlay, spec.Copy} {
		why, err := p.try(d)
		failed, ok := errors.AsType[*DriverError](err)
		switch {
		case err == nil:
			p.disk.Driver, p.disk.Why = d, strings.Join(append(reasons, why), "; ")
			return nil
		case !ok:
			return err
		}
		short, _, _ := strings.Cut(failed.Why, " (")
		reasons = append(reasons, short)
	}
	return errors.New("no disk driver works here")
}

// try returns why a driver works. The error is a *DriverError if it does not. To
// try Reflink, it makes the clone.
func (p *plan) try(d spec.Driver) (why string, err error) {
	switch d {
	case spec.Reflink:
		name := fileSystem(p.dir)
		p.clone, err = reflink(p.image, p.dir)
		if errors.Is(err, errors.ErrUnsupported) {
			return "", &DriverError{d, name + " does not share extents (btrfs does, and xfs with reflink=1)"}
		}
		return name + " shares extents", err
	case spec.Overlay:
		if _, err := exec.LookPath(imageTool); err != nil {
			return "", &DriverError{d, imageTool + " is not installed (apt install qemu-utils)"}
		}
		return imageTool + " is installed", nil
	case spec.DM:
		if err := resource.CheckSnapshots(); err != nil {
			return "", &DriverError{d, err.Error()}
		}
		return "device mapper has snapshots", nil
	case spec.Copy:
		return "a copy works everywhere", nil
	}
	return "", spec.Errorf("disk driver %q: not one that a machine can have", d)
}

// fileSystem returns the name of the type of dir's file system.
func fileSystem(dir string) string {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return "the file system"
	}
	magic := uint32(st.Type) // the width of Type differs between architectures
	for _, row := range []struct {
		magic uint32
		name  string
	}{
		{unix.BTRFS_SUPER_MAGIC, "btrfs"}, {unix.XFS_SUPER_MAGIC, "xfs"}, {unix.EXT4_SUPER_MAGIC, "ext4"},
		{unix.BCACHEFS_SUPER_MAGIC, "bcachefs"}, {unix.F2FS_SUPER_MAGIC, "f2fs"}, {unix.NFS_SUPER_MAGIC, "nfs"},
		{unix.OVERLAYFS_SUPER_MAGIC, "overlayfs"}, {unix.TMPFS_MAGIC, "tmpfs"},
	} {
		if row.magic == magic {
			return row.name
		}
	}
	return fmt.Sprintf("the file system (type %#x)", magic)
}

// A DriverReport reports whether one driver works.
type DriverReport struct {
	Driver spec.Driver
	Usable bool
	Why    string // the reason
	Auto   bool   // Auto selects this driver
}

// Probe tries each driver in folder, which is to hold the machines' disks. It
// leaves no file there.
func Probe(ctx context.Context, folder string) []DriverReport {
	p := &plan{dir: folder}
	defer p.close()
	imageErr := p.openTestImage()
	var out []DriverReport
	for _, d := range drivers() {
		r := DriverReport{Driver: d}
		err := imageErr
		if err == nil {
			r.Why, err = p.try(d)
		}
		if err == nil && d == spec.Overlay {
			err = exec.CommandContext(ctx, imageTool, "--version").Run()
		}
		failed, ok := errors.AsType[*DriverError](err)
		switch {
		case ok:
			r.Why = failed.Why
		case err != nil:
			r.Why = err.Error()
		default:
			r.Usable = true
		}
		out = append(out, r)
	}
	for i := range out {
		if out[i].Usable && out[i].Driver != spec.DM {
			out[i].Auto = true
			break
		}
	}
	return out
}

// openTestImage opens a small file without a name as the image of p.
func (p *plan) openTestImage() (err error) {
	p.image, err = openUnnamed(p.dir)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil // only Reflink reads the image, and it will not work either
	}
	if err != nil {
		return err
	}
	const block = 4096
	_, err = p.image.Write(make([]byte, block))
	return err
}
