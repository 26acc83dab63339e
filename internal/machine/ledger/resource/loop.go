package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

const loopPrefix = "banger-"

// roleForm is the form of a device's role in its machine. Of the 63 bytes of
// lo_file_name, the mark of a loop device leaves 34 for the role.
var roleForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)

func loopMark(owner ledger.Owner, name string) string {
	return loopPrefix + string(owner) + "-" + name
}

// LoopOptions are the properties of a loop device. The zero value is a writable
// device that stays attached.
type LoopOptions struct {
	ReadOnly bool
	// AutoClear makes the kernel detach the device when the last process or
	// device that has it open closes it.
	AutoClear bool
}

// Loop attaches the regular file at path to a free loop device and returns the
// open device, whose Name is its path. name is the role of the device in the
// machine: lower case letters, digits and '-', at most 32.
func (m Maker) Loop(ctx context.Context, name, path string, o LoopOptions) (device *os.File, err error) {
	if !roleForm.MatchString(name) {
		return nil, fmt.Errorf("name of loop device %q: want lower case letters, digits and '-', at most 32", name)
	}
	flag := os.O_RDWR
	if o.ReadOnly {
		flag = os.O_RDONLY
	}
	backing, err := os.OpenFile(path, flag, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer backing.Close() // the device has a reference of its own
	var st unix.Stat_t
	if err := unix.Fstat(int(backing.Fd()), &st); err != nil {
		return nil, fmt.Errorf("attach loop device to %s: %w", path, err)
	}
	e := ledger.Entry{Kind: ledger.Loop, Name: name, Path: path, File: ledger.FileID{Dev: st.Dev, Ino: st.Ino}}
	err = m.make(ctx, e, func(e *ledger.Entry) (err error) {
		if device, err = attach(backing, loopMark(m.Owner, name), flag, o); err == nil {
			e.Device = device.Name()
		}
		return err
	})
	if err != nil {
		if device != nil {
			device.Close()
		}
		return nil, err
	}
	return device, nil
}

// attach attaches a file to the first loop device that is free.
func attach(backing *os.File, mark string, flag int, o LoopOptions) (*os.File, error) {
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	config := unix.LoopConfig{Fd: uint32(backing.Fd())}
	copy(config.Info.File_name[:], mark)
	if o.ReadOnly {
		config.Info.Flags |= unix.LO_FLAGS_READ_ONLY
	}
	if o.AutoClear {
		config.Info.Flags |= unix.LO_FLAGS_AUTOCLEAR
	}
	const attempts = 100 // another process may take the free device first
	for range attempts {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		device, err := os.OpenFile("/dev/loop"+strconv.Itoa(n), flag, 0)
		if err != nil {
			return nil, err
		}
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		device.Close()
		if !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s: %w", device.Name(), err)
		}
	}
	return nil, errors.New("find a free loop device: other processes took each one first")
}

// removeLoop detaches the device of e. If e was not identified, it detaches each
// device with the mark and the file of e.
func removeLoop(ctx context.Context, e *ledger.Entry) error {
	if e.Device != "" {
		return detach(ctx, e.Device, e)
	}
	devices, err := loopDevices()
	errs := []error{err}
	for _, device := range devices {
		errs = append(errs, detach(ctx, device, e))
	}
	return errors.Join(errs...)
}

// detach detaches the device if it has the mark and the file of e, and waits
// until the kernel has done so.
func detach(ctx context.Context, device string, e *ledger.Entry) error {
	if !strings.HasPrefix(device, "/dev/loop") {
		return fmt.Errorf("%s is not a loop device", device)
	}
	requested := false
	return until(ctx, func() (gone bool, err error) {
		f, info, err := openLoop(device)
		if f == nil {
			return true, err
		}
		defer f.Close()
		if loopName(info) != loopMark(e.Owner, e.Name) || info.Inode != e.File.Ino || info.Device != e.File.Dev {
			return true, nil
		}
		// While the device is open here, no other process can attach it to another
		// file. If other processes have it open too, the kernel detaches it when
		// the last of them closes it.
		if !requested {
			if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
				return false, fmt.Errorf("detach %s: %w", device, err)
			}
			requested = true
		}
		return false, nil
	})
}

// openLoop opens a loop device and returns its status. The file is nil if the
// device is not attached.
func openLoop(device string) (*os.File, *unix.LoopInfo64, error) {
	f, err := os.OpenFile(device, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENXIO) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := unix.IoctlLoopGetStatus64(int(f.Fd()))
	if err == nil {
		return f, info, nil
	}
	f.Close()
	if errors.Is(err, unix.ENXIO) || errors.Is(err, unix.ENODEV) {
		return nil, nil, nil
	}
	return nil, nil, fmt.Errorf("read status of %s: %w", device, err)
}

// loopName returns the file name in the status of a loop device.
func loopName(info *unix.LoopInfo64) string {
	name, _, _ := bytes.Cut(info.File_name[:], []byte{0})
	return string(name)
}

// loopDevices returns the paths of the loop devices that are attached.
func loopDevices() ([]string, error) {
	dirs, err := filepath.Glob("/sys/block/loop*/loop")
	if err != nil {
		return nil, fmt.Errorf("list loop devices: %w", err)
	}
	var out []string
	for _, dir := range dirs {
		out = append(out, "/dev/"+filepath.Base(filepath.Dir(dir)))
	}
	return out, nil
}

// findLoops returns entries for the loop devices whose owner want accepts.
func findLoops(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	devices, err := loopDevices()
	if err != nil {
		return nil, err
	}
	var out []ledger.Entry
	var errs []error
	for _, device := range devices {
		f, info, err := openLoop(device)
		if errors.Is(err, fs.ErrPermission) {
			continue // a user who may not open loop devices has made none
		}
		if f == nil {
			errs = append(errs, err)
			continue
		}
		f.Close()
		owner, name, ok := cutMark(loopName(info), loopPrefix)
		if !ok || !want(owner) {
			continue
		}
		out = append(out, ledger.Entry{
			Kind: ledger.Loop, Name: name, Owner: owner, Device: device,
			File: ledger.FileID{Dev: info.Device, Ino: info.Inode},
		})
	}
	return out, errors.Join(errs...)
}

// cutMark splits a mark of the form prefix + owner + "-" + name.
func cutMark(mark, prefix string) (owner ledger.Owner, name string, ok bool) {
	const ownerLength = 21
	rest, ok := strings.CutPrefix(mark, prefix)
	if !ok || len(rest) < ownerLength {
		return "", "", false
	}
	owner, ok = ledger.ParseOwner(rest[:ownerLength])
	name, dash := strings.CutPrefix(rest[ownerLength:], "-")
	return owner, name, ok && dash && roleForm.MatchString(name)
}
