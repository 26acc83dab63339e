package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/poll"
	"github.com/banger-vm/banger/internal/guest"
)

// powerOff flushes the disks and ends the machine. It returns only with an
// error.
func (m *machine) powerOff() error {
	if err := detachDisks(); err != nil {
		// The journal repairs the file system at the next boot.
		m.printLine(guest.NotePrefix + err.Error())
	}
	return powerOff(int(m.console.Fd()))
}

// powerOff ends the machine at once, after the console, a file descriptor, has
// sent its pending output.
func powerOff(console int) error {
	// This is tcdrain(3). It fails if the console is not a terminal, which has no
	// output to wait for.
	_ = unix.IoctlSetInt(console, unix.TCSBRK, 1)
	// Without ACPI a PC's kernel would only halt. A restart ends the machine
	// too, because QEMU runs with -no-reboot.
	command := unix.LINUX_REBOOT_CMD_POWER_OFF
	if _, err := os.Stat("/sys/firmware/acpi"); err != nil && isPC {
		command = unix.LINUX_REBOOT_CMD_RESTART
	}
	return fmt.Errorf("power off: %w", unix.Reboot(command))
}

// detachDisks unmounts the file systems of disks in reverse order. The root
// file system is the last and can only be remounted read-only.
func detachDisks() error {
	unix.Sync()
	points := []string{"/"} // the only mount if /proc is not mounted yet
	if b, err := os.ReadFile("/proc/self/mounts"); err == nil {
		points = diskMounts(string(b))
	}
	var errs []error
	for _, target := range slices.Backward(points) {
		err := unix.Unmount(target, 0)
		if target == "/" || err != nil {
			err = remountReadOnly(target)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	unix.Sync()
	return errors.Join(errs...)
}

// diskMounts returns the mount points of block devices in mounts, the content
// of /proc/self/mounts, in the order of mounting.
func diskMounts(mounts string) []string {
	var points []string
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(mounts) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(fields[0], "/dev/") {
			points = append(points, unescape.Replace(fields[1]))
		}
	}
	return points
}

// remountReadOnly makes a file system read-only. It retries for a second,
// because processes that were killed may still have files open.
func remountReadOnly(target string) error {
	const interval = 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	var err error
	_ = poll.Until(ctx, interval, func() (bool, error) { // the caller gets err, the reason of the last try
		err = unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		return !errors.Is(err, unix.EBUSY), nil
	})
	return err
}
