// Package confine restricts what a process can reach of the host: files, by
// Landlock (landlock(7)), and sockets, other processes' memory and kernel objects
// that no file permission guards, by seccomp (seccomp(2)). Neither needs a
// privilege, and no child process can lift them.
//
// The package restricts one thread, because the processes that it starts inherit
// the restrictions of the thread, and the rest of the program must stay as it
// is. Libraries for Landlock restrict all threads of the caller, so the package
// makes the three system calls itself.
package confine

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Access is a set of rights on files.
type Access uint64

// The rights.
const (
	// Read permits to read files and folders.
	Read Access = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// Run permits to read and to execute.
	Run = Read | unix.LANDLOCK_ACCESS_FS_EXECUTE
	// ReadWrite permits to read and to write existing files and devices, and to
	// control the devices.
	ReadWrite = Read | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

	// fileRights are the rights that a rule for a file may have. The kernel
	// refuses the others (landlock_add_rule(2)).
	fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// A Rule permits access to one file, or to a folder and everything below it.
type Rule struct {
	Path   string   // a path that does not exist is left out
	File   *os.File // in the place of Path, for a file that is open
	Access Access
}

// Thread restricts the calling thread, for good, and all processes that it
// starts from then on: to the files of rules, to the descriptors that it passes
// on, and by the seccomp filter. The caller has locked its goroutine to the
// thread and never unlocks it, so that the thread ends with the goroutine.
//
// If the kernel has no Landlock, only the seccomp filter applies.
func Thread(rules []Rule) error {
	if err := restrictThread(rules); err != nil {
		return fmt.Errorf("confine process: %w", err)
	}
	return nil
}

func restrictThread(rules []Rule) error {
	set, rights, err := newRuleset(ABI())
	if err != nil {
		return err
	}
	if set >= 0 {
		defer unix.Close(set)
		for _, r := range rules {
			if err := addRule(set, rights, r); err != nil {
				return err
			}
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	if set >= 0 {
		if _, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(set), 0, 0); errno != 0 {
			return fmt.Errorf("enforce Landlock rules: %w", errno)
		}
	}
	return filterCalls()
}

// ABI returns the version of the kernel's Landlock interface, or 0 if the kernel
// has none or has it switched off.
func ABI() int {
	v, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

// handled returns the rights and scopes that an ABI can restrict: everything
// that the versions of landlock(7) list, apart from UDP, which needs a socket.
func handled(abi int) unix.LandlockRulesetAttr {
	a := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_REFER - 1}
	if abi >= 2 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if abi >= 3 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if abi >= 4 {
		a.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
	}
	if abi >= 5 {
		a.Handled_access_fs |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	if abi >= 6 {
		a.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	return a
}

// newRuleset creates a ruleset and returns its descriptor and the rights that it
// handles. The descriptor is -1 if abi is 0. Some vendors' kernels refuse rights
// of the ABI that they report, so newRuleset tries the lower ones too.
func newRuleset(abi int) (fd int, rights Access, err error) {
	for ; abi > 0; abi-- {
		attr := handled(abi)
		set, _, errno := unix.RawSyscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
		if errno == 0 {
			return int(set), Access(attr.Handled_access_fs), nil
		}
		if errno != unix.EINVAL && errno != unix.E2BIG || abi == 1 {
			return -1, 0, fmt.Errorf("create Landlock rules: %w", errno)
		}
	}
	return -1, 0, nil
}

func addRule(set int, rights Access, r Rule) error {
	file := r.File
	if file == nil {
		fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES) {
			return nil // the process cannot open it either
		}
		if err != nil {
			return fmt.Errorf("permit %s: %w", r.Path, err)
		}
		file = os.NewFile(uintptr(fd), r.Path)
		defer file.Close()
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &st); err != nil {
		return fmt.Errorf("permit %s: %w", file.Name(), err)
	}
	access := r.Access & rights
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fileRights
	}
	attr := pathBeneath(access, int(file.Fd()))
	_, _, errno := unix.RawSyscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(set), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	// The kernel takes no rule for a file without a place in the file system,
	// such as one of memfd_create(2), and never refuses to open it.
	if errno != 0 && errno != unix.EBADFD {
		return fmt.Errorf("permit %s: %w", file.Name(), errno)
	}
	return nil
}

// pathBeneath returns struct landlock_path_beneath_attr of linux/landlock.h,
// which is packed.
func pathBeneath(access Access, fd int) (attr [12]byte) {
	binary.NativeEndian.PutUint64(attr[:], uint64(access))
	binary.NativeEndian.PutUint32(attr[8:], uint32(fd))
	return attr
}
