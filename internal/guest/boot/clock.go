package boot

import (
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The limits between which the guest's clock counts as right, relative to the
// host's clock at start plus the kernel's uptime. A right clock is behind by no
// more than the resolution of a PC's clock, one second. It is ahead by the time
// that the monitor and the firmware needed to start the kernel.
const (
	maxBehind = time.Second
	maxAhead  = 2 * time.Minute
)

// uptime returns the time since the kernel started, or 0 if that is not known.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// clockIsWrong reports whether a clock that shows now is outside of the limits.
// start is the host's clock when the machine was started, up is the kernel's
// uptime.
func clockIsWrong(now, start time.Time, up time.Duration) bool {
	drift := now.Sub(start.Add(up))
	return drift < -maxBehind || drift > maxAhead
}

// setClock sets the clock if it is wrong. start is the host's clock when the
// machine was started.
func setClock(start time.Time) (set bool, err error) {
	up := uptime()
	if !clockIsWrong(time.Now(), start, up) {
		return false, nil
	}
	want := start.Add(up)
	tv := unix.NsecToTimeval(want.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return false, fmt.Errorf("set clock: %w", err)
	}
	return true, nil
}

// rndAddEntropy is RNDADDENTROPY of linux/random.h, _IOW('R', 3, int[2]).
const rndAddEntropy = 0x40085203

// addEntropy mixes seed into the kernel's random number generator and credits
// all of its bits.
func addEntropy(seed []byte) error {
	if len(seed) == 0 {
		return nil
	}
	// struct rand_pool_info: the number of bits, the number of bytes, the
	// bytes.
	info := make([]uint32, 2+(len(seed)+3)/4)
	info[0], info[1] = uint32(len(seed)*8), uint32(len(seed))
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&info[2])), len(seed)), seed)
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("add entropy: %w", err)
	}
	defer f.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); errno != 0 {
		return fmt.Errorf("add entropy: %w", errno)
	}
	return nil
}
