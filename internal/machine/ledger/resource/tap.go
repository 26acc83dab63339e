package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

const (
	tapPrefix   = "bgr" // with the ID it has the 15 bytes that IFNAMSIZ allows
	aliasPrefix = "banger "
)

// TapOptions are the properties of a tap.
type TapOptions struct {
	// Persist keeps the tap when the file is closed, for a monitor that opens
	// it by name. Otherwise the kernel removes the tap when the last process that
	// has it open closes it.
	Persist bool
}

// Tap makes the machine's tap and returns it with its name. The interface is
// down and has no address.
func (m Maker) Tap(ctx context.Context, o TapOptions) (tap *os.File, name string, err error) {
	name = tapPrefix + m.Owner.ID()
	err = m.make(ctx, ledger.Entry{Kind: ledger.Tap, Name: name}, func(e *ledger.Entry) (err error) {
		tap, err = openTap(name)
		if err != nil {
			return err
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		e.Index = link.Attrs().Index
		return netlink.LinkSetAlias(link, aliasPrefix+string(m.Owner))
	})
	// Up to here the kernel removes the tap when this process ends, so that no tap
	// without a mark can persist.
	if err == nil && o.Persist {
		if err = persist(tap); err != nil {
			err = errors.Join(fmt.Errorf("make tap %s: %w", name, err), m.release(ctx, ledger.Tap, name))
		}
	}
	if err != nil {
		if tap != nil {
			tap.Close()
		}
		return nil, "", err
	}
	return tap, name, nil
}

// release removes a resource that make has completed, and strikes its entry.
func (m Maker) release(ctx context.Context, kind ledger.Kind, name string) error {
	for _, e := range m.Ledger.Entries() {
		if e.Kind == kind && e.Name == name {
			if err := Remove(context.WithoutCancel(ctx), e); err != nil {
				return err
			}
			return m.Ledger.Strike(e)
		}
	}
	return nil
}

// openTap makes the tap name and returns its file.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	tap := os.NewFile(uintptr(fd), name)
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		// IFF_TUN_EXCL returns EBUSY if the interface exists.
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | unix.IFF_TUN_EXCL)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		tap.Close()
		return nil, err
	}
	return tap, nil
}

// persist makes the tap stay when its file is closed.
func persist(tap *os.File) error {
	conn, err := tap.SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = conn.Control(func(fd uintptr) {
		ioctlErr = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 1)
	})
	return errors.Join(err, ioctlErr)
}

func removeTap(e *ledger.Entry) error {
	link, err := netlink.LinkByName(e.Name)
	if isNoLink(err) {
		return nil
	}
	if err != nil {
		return err
	}
	a := link.Attrs()
	if a.Alias != aliasPrefix+string(e.Owner) || (e.Index != 0 && a.Index != e.Index) {
		return nil
	}
	// The request names the interface by its index, which no later one gets.
	byIndex := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: a.Index}}
	if err := netlink.LinkDel(byIndex); !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

// isNoLink reports whether err means that an interface does not exist.
func isNoLink(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing) || errors.Is(err, unix.ENODEV)
}

// findTaps returns entries for the taps whose owner want accepts.
func findTaps(want func(ledger.Owner) bool) ([]ledger.Entry, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	var out []ledger.Entry
	for _, link := range links {
		a := link.Attrs()
		mark, ok := strings.CutPrefix(a.Alias, aliasPrefix)
		owner, valid := ledger.ParseOwner(mark)
		if ok && valid && a.Name == tapPrefix+owner.ID() && want(owner) {
			out = append(out, ledger.Entry{Kind: ledger.Tap, Name: a.Name, Owner: owner, Index: a.Index})
		}
	}
	return out, nil
}
