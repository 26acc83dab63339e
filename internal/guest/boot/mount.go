package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is a mount of one of the kernel's own file systems.
type mount struct {
	kind, target string
	flags        uintptr
	data         string
	// optional marks a file system that the kernel may lack. The machine works
	// without it.
	optional bool
}

const noSuidDevExec = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// kernelMounts returns the mounts that this package itself needs.
func kernelMounts() []mount {
	return []mount{
		{kind: "proc", target: "/proc", flags: noSuidDevExec},
		{kind: "sysfs", target: "/sys", flags: noSuidDevExec},
		{kind: "devtmpfs", target: "/dev", flags: unix.MS_NOSUID, data: "mode=755"},
	}
}

// rootMounts returns the further mounts that programs expect. Group 5 is tty,
// as in every distribution and in docker's containers.
func rootMounts() []mount {
	return []mount{
		{kind: "devpts", target: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "gid=5,mode=620,ptmxmode=666"},
		{kind: "tmpfs", target: "/dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
	}
}

// initMounts returns the mounts that an init makes for itself. They are made
// only if the guest program stays process 1.
func initMounts() []mount {
	return []mount{
		{kind: "mqueue", target: "/dev/mqueue", flags: noSuidDevExec, optional: true},
		{kind: "cgroup2", target: "/sys/fs/cgroup", flags: noSuidDevExec, optional: true},
	}
}

// mountAll mounts the list in order and creates missing mount points. It calls
// note and goes on if an optional mount fails, or if the root is readOnly and
// lacks the mount point. It returns an error for any other failure, for a
// missing /proc or /dev, and for every failure if note is nil.
func mountAll(list []mount, readOnly bool, note func(format string, args ...any)) error {
	for _, m := range list {
		err := makePoint(m.target, readOnly)
		if err == nil {
			err = unix.Mount(m.kind, m.target, m.kind, m.flags, m.data)
		}
		switch {
		case err == nil:
		case note != nil && (m.optional || errors.Is(err, errNoPoint) && !essential(m.target)):
			note("%s not mounted: %v", m.target, err)
		default:
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

func essential(target string) bool { return target == "/proc" || target == "/dev" }

var errNoPoint = errors.New("it is missing in the image, and the root file system is read-only")

// makePoint creates the folder target if it is missing.
func makePoint(target string, readOnly bool) error {
	_, err := os.Stat(target)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Folders below /dev and /sys belong to a file system of the kernel, not to
	// the image.
	if readOnly && !strings.HasPrefix(target, "/dev/") && !strings.HasPrefix(target, "/sys/") {
		return errNoPoint
	}
	return os.MkdirAll(target, 0o755)
}

// devLinks lists the symlinks that POSIX shells and libraries expect in /dev.
// devtmpfs has only the devices.
func devLinks() [][2]string {
	return [][2]string{
		{"/proc/self/fd", "/dev/fd"},
		{"/proc/self/fd/0", "/dev/stdin"},
		{"/proc/self/fd/1", "/dev/stdout"},
		{"/proc/self/fd/2", "/dev/stderr"},
	}
}

func linkDev() error {
	for _, l := range devLinks() {
		if err := os.Symlink(l[0], l[1]); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link %s: %w", l[1], err)
		}
	}
	return nil
}
