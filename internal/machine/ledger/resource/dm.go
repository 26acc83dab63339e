package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

const (
	dmPrefix   = "banger-"
	uuidPrefix = "BANGER-"
)

// SectorSize is the unit of device mapper's tables in bytes.
const SectorSize = 512

// snapshotChunk is the unit in bytes in which a snapshot keeps changes: a page.
const snapshotChunk = 8 * SectorSize

// A Target is one line of a device's table, as dmsetup(8) has them. Start and
// Length are in sectors.
type Target struct {
	Start, Length uint64
	Type, Params  string
}

// SnapshotTarget is a writable view of the device origin, which stays as it
// is; what is written goes to the device cow and is found there again by the
// next target on the two.
func SnapshotTarget(origin, cow string, sectors uint64) Target {
	params := fmt.Sprintf("%s %s P %d", origin, cow, snapshotChunk/SectorSize)
	return Target{Length: sectors, Type: "snapshot", Params: params}
}

// SnapshotSpace is how many bytes a device cow needs to have so that a snapshot
// of size bytes can change to its last one: the kernel takes a snapshot whose
// changes do not fit for lost. It keeps a header, and before every 256 changed
// chunks one that says which they are (drivers/md/dm-snap-persistent.c).
func SnapshotSpace(size int64) int64 {
	const perArea = snapshotChunk / 16
	chunks := (size + snapshotChunk - 1) / snapshotChunk
	areas := chunks/perArea + 1
	return (1 + areas + chunks + 1) * snapshotChunk
}

// EnlargedTargets are those of a device that has the sectors of the device
// origin, and after them zeros up to total.
func EnlargedTargets(origin string, sectors, total uint64) []Target {
	return []Target{
		{Length: sectors, Type: "linear", Params: origin + " 0"},
		{Start: sectors, Length: total - sectors, Type: "zero"},
	}
}

// DeviceOptions are what a device-mapper device is to be like.
type DeviceOptions struct{ ReadOnly bool }

// Device makes a device-mapper device of targets and returns its path. name is
// its part in the machine: lower case letters, digits and '-', at most 32.
func (m Maker) Device(ctx context.Context, name string, o DeviceOptions, targets ...Target) (path string, err error) {
	if !partForm.MatchString(name) {
		return "", fmt.Errorf("name of dm device %q: want lower case letters, digits and '-', at most 32", name)
	}
	e := ledger.Entry{
		Kind: ledger.DM, Name: dmPrefix + m.Owner.ID() + "-" + name,
		UUID: uuidPrefix + string(m.Owner) + "-" + name,
	}
	table := dmRequest{uuid: e.UUID, targets: targets}
	if o.ReadOnly {
		table.flags = unix.DM_READONLY_FLAG
	}
	err = m.make(ctx, e, func(e *ledger.Entry) error {
		c, err := openMapper()
		if err != nil {
			return err
		}
		defer c.Close()
		created, _, err := c.call(unix.DM_DEV_CREATE, dmRequest{name: e.Name, uuid: e.UUID})
		if err != nil {
			return err
		}
		e.Device = dmNode(created.Dev)
		path = e.Device
		if _, _, err := c.call(unix.DM_TABLE_LOAD, table); err != nil {
			return err
		}
		// Without DM_SUSPEND_FLAG it is a resume, which puts the table to use.
		_, _, err = c.call(unix.DM_DEV_SUSPEND, dmRequest{uuid: e.UUID})
		return err
	})
	if err != nil {
		return "", err
	}
	return path, nil
}

func dmNode(dev uint64) string { return "/dev/dm-" + strconv.FormatUint(uint64(unix.Minor(dev)), 10) }

func removeDM(ctx context.Context, e *ledger.Entry) error {
	owner, name, ok := cutMark(e.UUID, uuidPrefix)
	if !ok || owner != e.Owner || e.Name != dmPrefix+owner.ID()+"-"+name {
		return fmt.Errorf("UUID %q is not one of its owner's", e.UUID)
	}
	c, err := openMapper()
	if refused(err) && os.Geteuid() == 0 {
		return nil // no device mapper in this kernel, so no device
	}
	if err != nil {
		return err
	}
	defer c.Close()
	// The UUID names the device, so another one of its name is not touched.
	return until(ctx, func() (gone bool, err error) {
		_, _, err = c.call(unix.DM_DEV_REMOVE, dmRequest{uuid: e.UUID})
		switch {
		case errors.Is(err, unix.ENXIO):
			return true, nil
		case errors.Is(err, unix.EBUSY):
			return false, nil // udev looks at new devices
		}
		return err == nil, err
	})
}

// CheckSnapshots says why this process can make no snapshot over loop devices,
// or that it can. It loads what the kernel has as modules.
func CheckSnapshots() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("loop and device-mapper devices are root's alone: %w", os.ErrPermission)
	}
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("the host has no loop devices (modprobe loop): %w", err)
	}
	control.Close()
	c, err := openMapper()
	if err != nil {
		return fmt.Errorf("the host has no device mapper (modprobe dm-mod): %w", err)
	}
	defer c.Close()
	for _, target := range []string{"snapshot", "zero"} { // linear is never a module
		_, _, err := c.call(unix.DM_GET_TARGET_VERSION, dmRequest{name: target})
		// Kernels before 5.4 cannot be asked.
		if err != nil && !errors.Is(err, unix.ENOTTY) {
			return fmt.Errorf("the device mapper has no target %s (modprobe dm-%s): %w", target, target, err)
		}
	}
	return nil
}

func findDM(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	c, err := openMapper()
	if refused(err) {
		return nil, nil // there is none, or none of this user's making
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, data, err := c.call(unix.DM_LIST_DEVICES, dmRequest{})
	if err != nil {
		return nil, fmt.Errorf("list dm devices: %w", err)
	}
	boot, err := BootID()
	if err != nil {
		return nil, err
	}
	var out []ledger.Entry
	for _, name := range parseNames(data) {
		status, _, err := c.call(unix.DM_DEV_STATUS, dmRequest{name: name})
		if errors.Is(err, unix.ENXIO) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("look at dm device %s: %w", name, err)
		}
		uuid := unix.ByteSliceToString(status.Uuid[:])
		owner, part, ok := cutMark(uuid, uuidPrefix)
		if ok && name == dmPrefix+owner.ID()+"-"+part && want(owner) {
			out = append(out, ledger.Entry{
				Kind: ledger.DM, Name: name, Owner: owner, Boot: boot, UUID: uuid, Device: dmNode(status.Dev),
			})
		}
	}
	// The kernel lists them in no order of making: RemoveAll sorts out the rest.
	slices.Reverse(out)
	return out, nil
}
