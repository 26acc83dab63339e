package boot

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// powerOff brings what was written to the disks and ends the machine. It
// returns only with an error.
func (m *machine) powerOff() error {
	if err := detachDisks(); err != nil {
		// The journal makes it good at the next boot.
		m.say("banger: " + err.Error())
	}
	return powerOff(int(m.console.Fd()))
}

// powerOff ends the machine at once. What was said on the console fd goes out
// before.
func powerOff(console int) error {
	unix.IoctlSetInt(console, unix.TCSBRK, 1) //nolint:errcheck // tcdrain(3): a console that is no terminal has nothing to wait for
	// Without ACPI a PC's kernel would only halt; a restart ends the machine
	// too, because its monitor is told not to (-no-reboot).
	command := unix.LINUX_REBOOT_CMD_POWER_OFF
	if _, err := os.Stat("/sys/firmware/acpi"); err != nil && isPC {
		command = unix.LINUX_REBOOT_CMD_RESTART
	}
	return fmt.Errorf("power off: %w", unix.Reboot(command))
}

// detachDisks unmounts the file systems on disks, the root last, which can
// only become read-only.
func detachDisks() error {
	unix.Sync()
	points := []string{"/"} // all there is before /proc is mounted in the root file system
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

// diskMounts are the mount points of block devices, from /proc/self/mounts,
// in the order of mounting.
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

// remountReadOnly waits a moment for processes that were killed to let go.
func remountReadOnly(target string) error {
	const pause, tries = 20 * time.Millisecond, 50
	for i := 0; ; i++ {
		err := unix.Mount("", target, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		if !errors.Is(err, unix.EBUSY) || i == tries {
			return err
		}
		<-time.After(pause)
	}
}
