package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is a file system that the kernel makes.
type mount struct {
	kind, target string
	flags        uintptr
	data         string
	// optional: not every kernel has it, and the machine does without.
	optional bool
}

const noFiles = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// kernelMounts are what this package needs to look at the machine.
func kernelMounts() []mount {
	return []mount{
		{kind: "proc", target: "/proc", flags: noFiles},
		{kind: "sysfs", target: "/sys", flags: noFiles},
		{kind: "devtmpfs", target: "/dev", flags: unix.MS_NOSUID, data: "mode=755"},
	}
}

// rootMounts are what programs expect besides. Group 5 is tty, as in every
// distribution and in docker's containers.
func rootMounts() []mount {
	return []mount{
		{kind: "devpts", target: "/dev/pts", flags: unix.MS_NOSUID | unix.MS_NOEXEC, data: "gid=5,mode=620,ptmxmode=666"},
		{kind: "tmpfs", target: "/dev/shm", flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=1777"},
	}
}

// initMounts are what an init mounts for itself, and would find in its way.
func initMounts() []mount {
	return []mount{
		{kind: "mqueue", target: "/dev/mqueue", flags: noFiles, optional: true},
		{kind: "cgroup2", target: "/sys/fs/cgroup", flags: noFiles, optional: true},
	}
}

// mountAll mounts in order. Where a mount point is missing it is made, unless
// the root is readOnly: then note is told, and nil or a missing /proc or /dev
// is an error.
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

// makePoint makes the folder target where it is missing.
func makePoint(target string, readOnly bool) error {
	_, err := os.Stat(target)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// What is below a kernel's file system is not the image's.
	if readOnly && !strings.HasPrefix(target, "/dev/") && !strings.HasPrefix(target, "/sys/") {
		return errNoPoint
	}
	return os.MkdirAll(target, 0o755)
}

// devLinks are those that POSIX shells and libraries expect in /dev; the
// kernel makes devices alone.
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
