package qemu

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/vmm"
)

// hostTSC is the speed of the host's time stamp counter in kHz, or 0 where
// /proc/cpuinfo does not say: Linux computes bogomips as twice the counter's
// MHz where it has one (calibrate_delay_is_known of arch/x86/kernel/tsc.c).
func hostTSC() (int, error) {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return parseTSC(f)
}

func parseTSC(r io.Reader) (int, error) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(name) != "bogomips" {
			continue
		}
		bogomips, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
		if err == nil && bogomips >= 1 && bogomips <= 1e6 {
			return int(math.Round(bogomips / 2 * 1000)), nil
		}
		break
	}
	return 0, lines.Err()
}

// Ids that QEMU may run with when root starts it.
const (
	// firstOwn to lastOwn are given to no user, service or container
	// (systemd's UIDS-GIDS document: "unused"). A machine takes one of them
	// at random, so that a guest which has taken its QEMU over cannot trace
	// or signal the QEMU of another.
	firstOwn = 0x70000000
	lastOwn  = 0x7fffffff
	// nobody is the kernel's overflow id, which owns no files: for a user
	// namespace that is too small for the others.
	nobody = 65534
)

// credential is whom QEMU runs as: somebody without privileges where root can
// become that, and nil, the caller, otherwise. Root without the capability, or
// of a user namespace that maps no other id, has no privileges to drop. kvm is
// the path of the device that QEMU must be able to open itself, or "".
func credential(kvm string) (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("read own capabilities: %w", err)
	}
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	if data[0].Effective&need != need {
		return nil, nil
	}
	var idMaps [2]string
	for i, name := range []string{"/proc/self/uid_map", "/proc/self/gid_map"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		idMaps[i] = string(text)
	}
	id, err := chooseID(rand.Reader, idMaps[0], idMaps[1])
	if id == 0 || err != nil {
		return nil, err
	}
	cred := &syscall.Credential{Uid: id, Gid: id}
	if kvm != "" {
		var st unix.Stat_t
		if err := unix.Stat(kvm, &st); err != nil {
			return nil, &os.PathError{Op: "stat", Path: kvm, Err: err}
		}
		// Group 0 stays dropped: it owns more than this device.
		if st.Mode&0o060 == 0o060 && st.Gid != 0 {
			cred.Groups = []uint32{st.Gid}
		}
	}
	return cred, nil
}

// chooseID is the user and group id of a machine, or 0 where the two maps have
// no other.
func chooseID(random io.Reader, uids, gids string) (uint32, error) {
	var bits [4]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return 0, fmt.Errorf("choose user of machine: %w", err)
	}
	own := firstOwn + binary.LittleEndian.Uint32(bits[:])%(lastOwn-firstOwn+1)
	for _, id := range []uint32{own, nobody} {
		if maps(uids, id) && maps(gids, id) {
			return id, nil
		}
	}
	return 0, nil
}

// maps says whether a map of user_namespaces(7) has id.
func maps(text string, id uint32) bool {
	for line := range strings.Lines(text) {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(line, &inside, &outside, &count); err != nil {
			return false
		}
		if inside <= uint64(id) && uint64(id)-inside < count {
			return true
		}
	}
	return false
}

// openBoot opens a file that QEMU opens again by the descriptor's path. The
// folders on the way do not matter then, but the file's own mode does: one
// that others may not read is passed as a copy in memory.
func openBoot(path string, others bool) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if !others || st.Mode()&0o004 != 0 {
		return f, nil
	}
	defer f.Close()
	fd, err := unix.MemfdCreate("banger-boot", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", path, err)
	}
	memory := os.NewFile(uintptr(fd), path)
	_, err = io.Copy(memory, f)
	if err == nil {
		err = memory.Chmod(0o444)
	}
	if err != nil {
		memory.Close()
		return nil, fmt.Errorf("copy %s: %w", path, err)
	}
	return memory, nil
}

// openDisk opens a disk's file or device as QEMU is to use it.
func openDisk(d vmm.Disk) (*os.File, error) {
	flags := os.O_RDWR
	if d.ReadOnly {
		flags = os.O_RDONLY
	}
	want := "a regular file"
	if d.Device {
		// Nobody else can mount it or put a device on it meanwhile (open(2)).
		flags |= os.O_EXCL
		want = "a block device"
	}
	f, err := os.OpenFile(d.Path, flags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != diskType(d) {
		err = &os.PathError{Op: "open", Path: d.Path, Err: errors.New("not " + want)}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func diskType(d vmm.Disk) fs.FileMode {
	if d.Device {
		return fs.ModeDevice
	}
	return 0
}
