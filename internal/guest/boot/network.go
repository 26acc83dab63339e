package boot

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// setUpNetwork brings the loopback interface up, and the interface of n if it
// has one. It uses the ioctls of netdevice(7), which are enough here, and needs
// no netlink library.
func setUpNetwork(n *guest.Network) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("set up network: %w", err)
	}
	defer unix.Close(fd)
	if err := bringUp(fd, "lo"); err != nil {
		return err
	}
	if n.Device == "" {
		return nil
	}
	if n.Address != "" {
		if err := setAddress(fd, n.Device, n.Address); err != nil {
			return err
		}
	}
	if err := bringUp(fd, n.Device); err != nil {
		return err
	}
	if n.Gateway == "" {
		return nil
	}
	return addGateway(fd, n.Device, n.Gateway)
}

// bringUp brings an interface up. The kernel then assigns lo its addresses.
func bringUp(fd int, device string) error {
	req, err := unix.NewIfreq(device)
	if err != nil {
		return fmt.Errorf("bring %s up: %w", device, err)
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, req); err != nil {
		return fmt.Errorf("bring %s up: %w", device, err)
	}
	req.SetUint16(req.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring %s up: %w", device, err)
	}
	return nil
}

func setAddress(fd int, device, address string) error {
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return fmt.Errorf("set address of %s: %w", device, err)
	}
	const bits = 32
	mask := ^uint32(0) << (bits - prefix.Bits())
	for _, set := range []struct {
		call uint
		addr []byte
	}{
		{unix.SIOCSIFADDR, prefix.Addr().AsSlice()},
		// Without this call the mask is that of the address's historical class.
		{unix.SIOCSIFNETMASK, []byte{byte(mask >> 24), byte(mask >> 16), byte(mask >> 8), byte(mask)}},
	} {
		req, err := unix.NewIfreq(device)
		if err != nil {
			return fmt.Errorf("set address of %s: %w", device, err)
		}
		if err := req.SetInet4Addr(set.addr); err != nil {
			return fmt.Errorf("set address of %s: %w", device, err)
		}
		if err := unix.IoctlIfreq(fd, set.call, req); err != nil {
			return fmt.Errorf("set address of %s to %s: %w", device, address, err)
		}
	}
	return nil
}

// sockaddr is struct sockaddr_in.
type sockaddr struct {
	family uint16
	_      uint16
	addr   [4]byte
	_      [8]byte
}

// rtentry is struct rtentry of linux/route.h on 64-bit machines.
type rtentry struct {
	_                     uint64
	dst, gateway, genmask sockaddr
	flags                 uint16
	_                     int16
	_, _                  uint64
	_                     int16
	device                *byte
	_ /* mtu */, _/* window */ uint64
	_/* irtt */ uint16
}

// addGateway adds the default route.
func addGateway(fd int, device, gateway string) error {
	addr, err := netip.ParseAddr(gateway)
	if err != nil || !addr.Is4() {
		return fmt.Errorf("add gateway %q", gateway)
	}
	name, err := unix.BytePtrFromString(device)
	if err != nil {
		return fmt.Errorf("add gateway %s: %w", gateway, err)
	}
	any4 := sockaddr{family: unix.AF_INET}
	route := rtentry{
		dst: any4, genmask: any4, gateway: sockaddr{family: unix.AF_INET, addr: addr.As4()},
		flags: unix.RTF_UP | unix.RTF_GATEWAY, device: name,
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCADDRT, uintptr(unsafe.Pointer(&route))); errno != 0 {
		return fmt.Errorf("add gateway %s: %w", gateway, errno)
	}
	return nil
}
