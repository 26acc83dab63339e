package disk

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrNoSpace says that the host has too little space for what was asked. It
// comes with the numbers, and is a syscall.ENOSPC too.
var ErrNoSpace = errors.New("not enough space")

// spaceReserve is what a machine takes at the least, in bytes: its logs, its
// record, and the first that the guest writes.
const spaceReserve = 64 << 20

// A SpaceError is an ErrNoSpace of the file system of Dir.
type SpaceError struct {
	Dir        string
	Need, Free int64 // bytes
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("%v: %d MiB are needed and %d MiB free in %s", ErrNoSpace, (e.Need-1)>>20+1, e.Free>>20, e.Dir)
}

// Is makes it an ErrNoSpace and an ENOSPC.
func (*SpaceError) Is(target error) bool { return target == ErrNoSpace || target == syscall.ENOSPC }

// spaceFor refuses to begin what the file system of dir has no room for:
// ErrNoSpace. There may still be too little of it later: others write too.
func spaceFor(dir string, need int64) error {
	free, err := freeSpace(dir)
	if err != nil {
		return fmt.Errorf("find free space: %w", err)
	}
	if free < need {
		return &SpaceError{dir, need, free}
	}
	return nil
}

func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	err := unix.Statfs(dir, &st)
	return int64(st.Bavail) * st.Frsize, err
}

// noSpace is err, as an ErrNoSpace with the numbers where the disk got full.
func (p *plan) noSpace(err error) error {
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrNoSpace) {
		return err
	}
	free, statErr := freeSpace(p.dir)
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
