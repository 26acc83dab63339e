package disk

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoSpace reports that a file system of the host has too little space. The
// error that wraps it is a *SpaceError, and is syscall.ENOSPC, too.
var ErrNoSpace = errors.New("not enough space")

// spaceReserve is the space that a machine needs at least, in bytes: for its
// logs, its record and the first writes of the guest.
const spaceReserve = 64 << 20

// A SpaceError is ErrNoSpace with the figures of the file system of Dir.
type SpaceError struct {
	Dir        string
	Need, Free int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%v: %d MiB are needed and %d MiB free in %s", ErrNoSpace, (e.Need-1)>>20+1, e.Free>>20, e.Dir)
}

// Is reports whether target is ErrNoSpace or syscall.ENOSPC.
func (*SpaceError) Is(target error) bool { return target == ErrNoSpace || target == syscall.ENOSPC }

// checkSpace returns ErrNoSpace if the file system of dir has less than need
// bytes free. Other programs may take the space after the check.
func checkSpace(dir string, need int64) error {
	free, err := FreeSpace(dir)
	if err != nil {
		return fmt.Errorf("find free space: %w", err)
	}
	if free < need {
		return &SpaceError{dir, need, free}
	}
	return nil
}

// FreeSpace returns the bytes that are free to this user.
func FreeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return int64(st.Bavail) * st.Frsize, err
}

// explainNoSpace returns a *SpaceError if err reports that the disk is full, else
// err.
func (p *plan) explainNoSpace(err error) error {
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrNoSpace) {
		return err
	}
	free, statErr := FreeSpace(p.dir)
	if statErr != nil {
		return errors.Join(err, statErr)
	}
	return &SpaceError{p.dir, p.need, free}
}

// Allocated returns the bytes that a file takes on the host. It returns 0 if
// path is a device or cannot be examined.
func Allocated(path string) int64 {
	const block = 512 // the unit of st_blocks, stat(2)
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return 0
	}
	return st.Blocks * block
}
