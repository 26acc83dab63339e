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

// SectorSize is the size in bytes of a sector, the unit of device mapper tables.
const SectorSize = 512

// snapshotChunk is the size in bytes of the chunks in which a snapshot stores
// changes: a page.
const snapshotChunk = 8 * SectorSize

// A Target is one line of a device's table, in the format of dmsetup(8). Start
// and Length are in sectors.
type Target struct {
	Start, Length uint64
	Type, Params  string
}

// SnapshotTarget returns a writable view of the device origin. The kernel stores
// the changes in the device cow and never writes to origin. A later target on
// the same two devices has the changes again.
func SnapshotTarget(origin, cow string, sectors uint64) Target {
	params := fmt.Sprintf("%s %s P %d", origin, cow, snapshotChunk/SectorSize)
	return Target{Length: sectors, Type: "snapshot", Params: params}
}

// SnapshotSpace returns the size in bytes that a device cow needs so that each
// byte of a snapshot of size bytes can change. If the changes do not fit, the
// kernel invalidates the snapshot. The device holds a header chunk, and one
// index chunk before each 256 changed chunks
// (drivers/md/dm-snap-persistent.c).
func SnapshotSpace(size int64) int64 {
	const perArea = snapshotChunk / 16 // an index entry has 16 bytes
	chunks := (size + snapshotChunk - 1) / snapshotChunk
	areas := chunks/perArea + 1
	return (1 + areas + chunks + 1) * snapshotChunk
}

// EnlargedTargets returns the targets of a device with the sectors of the device
// origin, followed by zeros up to total sectors.
func EnlargedTargets(origin string, sectors, total uint64) []Target {
	return []Target{
		{Length: sectors, Type: "linear", Params: origin + " 0"},
		{Start: sectors, Length: total - sectors, Type: "zero"},
	}
}

// DeviceOptions are the properties of a device-mapper device. The zero value is
// a writable one.
type DeviceOptions struct{ ReadOnly bool }

// Device makes a device-mapper device from targets and returns its path. name is
// its role in the machine: lower case letters, digits and '-', at most 32.
func (m Maker) Device(ctx context.Context, name string, o DeviceOptions, targets ...Target) (path string, err error) {
	if !roleForm.MatchString(name) {
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
		// Without DM_SUSPEND_FLAG this resumes the device, which activates the table.
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
		return fmt.Errorf("UUID %q: does not belong to owner %s", e.UUID, e.Owner)
	}
	c, err := openMapper()
	if isUnavailable(err) && os.Geteuid() == 0 {
		return nil // the kernel has no device mapper, so the device does not exist
	}
	if err != nil {
		return err
	}
	defer c.Close()
	// The request names the device by its UUID, so it cannot hit another device of
	// the same name.
	return until(ctx, func() (gone bool, err error) {
		_, _, err = c.call(unix.DM_DEV_REMOVE, dmRequest{uuid: e.UUID})
		switch {
		case errors.Is(err, unix.ENXIO):
			return true, nil
		case errors.Is(err, unix.EBUSY):
			return false, nil // udev opens new devices for a short time
		}
		return err == nil, err
	})
}

// CheckSnapshots returns nil if this process can make a snapshot over loop
// devices, and otherwise an error with the reason. It makes the kernel load the
// modules that a snapshot needs.
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
	for _, target := range []string{"snapshot", "zero"} { // linear is always built in
		_, _, err := c.call(unix.DM_GET_TARGET_VERSION, dmRequest{name: target})
		// Kernels before 5.4 do not have DM_GET_TARGET_VERSION: ENOTTY.
		if err != nil && !errors.Is(err, unix.ENOTTY) {
			return fmt.Errorf("the device mapper has no target %s (modprobe dm-%s): %w", target, target, err)
		}
	}
	return nil
}

// findDM returns entries for the device-mapper devices whose owner want accepts.
func findDM(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	c, err := openMapper()
	if isUnavailable(err) {
		return nil, nil // this user cannot have made a device
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	_, data, err := c.call(unix.DM_LIST_DEVICES, dmRequest{})
	if err != nil {
		return nil, fmt.Errorf("list dm devices: %w", err)
	}
	var out []ledger.Entry
	for _, name := range parseNames(data) {
		status, _, err := c.call(unix.DM_DEV_STATUS, dmRequest{name: name})
		if errors.Is(err, unix.ENXIO) {
			continue // removed since the listing
		}
		if err != nil {
			return nil, fmt.Errorf("read status of dm device %s: %w", name, err)
		}
		uuid := unix.ByteSliceToString(status.Uuid[:])
		owner, role, ok := cutMark(uuid, uuidPrefix)
		if ok && name == dmPrefix+owner.ID()+"-"+role && want(owner) {
			out = append(out, ledger.Entry{
				Kind: ledger.DM, Name: name, Owner: owner, UUID: uuid, Device: dmNode(status.Dev),
			})
		}
	}
	// The kernel does not list devices in the order in which they were made. The
	// reverse is a guess; RemoveAll tries again if it is wrong.
	slices.Reverse(out)
	return out, nil
}
