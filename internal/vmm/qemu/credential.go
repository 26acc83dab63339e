package qemu

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The user and group IDs of a QEMU that root starts.
const (
	// The range from minMachineID to maxMachineID belongs to no user, service
	// or container (systemd's UIDS-GIDS document: "unused"). Each machine gets
	// a random ID of the range. So a guest that has taken over its QEMU cannot
	// trace or signal the QEMU of another machine.
	minMachineID = 0x70000000
	maxMachineID = 0x7fffffff
	// overflowID is the kernel's overflow ID, which owns no files. It is used
	// in a user namespace that does not map the range.
	overflowID = 65534
)

// credential returns the credential for QEMU: an unprivileged user if this
// process may change its user, and nil otherwise. Root without the
// capabilities, or in a user namespace that maps no other ID, has no privileges
// to drop. kvm is the path of the device that QEMU must be able to open, or "".
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
		// Group 0 is not added, because it owns other files too.
		if st.Mode&0o060 == 0o060 && st.Gid != 0 {
			cred.Groups = []uint32{st.Gid}
		}
	}
	return cred, nil
}

// chooseID returns the user and group ID for a machine, or 0 if the two maps
// contain none of the candidates.
func chooseID(random io.Reader, uids, gids string) (uint32, error) {
	var bits [4]byte
	if _, err := io.ReadFull(random, bits[:]); err != nil {
		return 0, fmt.Errorf("choose user of machine: %w", err)
	}
	own := minMachineID + binary.LittleEndian.Uint32(bits[:])%(maxMachineID-minMachineID+1)
	for _, id := range []uint32{own, overflowID} {
		if mapsID(uids, id) && mapsID(gids, id) {
			return id, nil
		}
	}
	return 0, nil
}

// mapsID reports whether a map of user_namespaces(7) contains id.
func mapsID(text string, id uint32) bool {
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
