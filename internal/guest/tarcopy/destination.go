package tarcopy

import (
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A destination is a name in an open folder.
type destination struct {
	dir  int
	base string
}

// publish calls produce, which creates a file under a temporary name, and
// renames that file to the destination's name. It replaces a file of that name.
func (d destination) publish(produce func(temporary string) error) error {
	temporary := ".banger-" + rand.Text()
	err := produce(temporary)
	if err == nil {
		err = unix.Renameat(d.dir, temporary, d.dir, d.base)
		if errors.Is(err, unix.EBUSY) {
			err = fmt.Errorf("something is mounted there: %w", err)
		}
	}
	// rename(2) leaves the temporary name if both names are of the same file.
	if gone := unix.Unlinkat(d.dir, temporary, 0); err == nil && gone != nil && !errors.Is(gone, unix.ENOENT) {
		err = gone
	}
	return err
}
