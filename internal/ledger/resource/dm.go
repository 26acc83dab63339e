package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/ledger"
)

const (
	dmPrefix   = "banger-"
	uuidPrefix = "BANGER-"
)

// SectorSize is the unit of device mapper's tables in bytes.
const SectorSize = 512

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
	const chunk = 8 // sectors: a page
	return Target{Length: sectors, Type: "snapshot", Params: fmt.Sprintf("%s %s P %d", origin, cow, chunk)}
}

// Device makes a device-mapper device of targets and returns its path. name is
// its part in the machine: lower case letters, digits and '-', at most 32.
func (m Maker) Device(ctx context.Context, name string, targets ...Target) (path string, err error) {
	if !partForm.MatchString(name) {
		return "", fmt.Errorf("name of dm device %q: want lower case letters, digits and '-', at most 32", name)
	}
	e := ledger.Entry{
		Kind: ledger.DM, Name: dmPrefix + m.Owner.ID() + "-" + name,
		UUID: uuidPrefix + string(m.Owner) + "-" + name,
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
		if _, _, err := c.call(unix.DM_TABLE_LOAD, dmRequest{uuid: e.UUID, targets: targets}); err != nil {
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
	boot, err := bootID()
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
