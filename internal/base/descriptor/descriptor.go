// Package descriptor closes the file descriptors that a process has inherited
// from its caller. A process that outlives its caller must not keep the caller's
// locks, pipes and files open.
package descriptor

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// folder lists the descriptors of this process; see proc(5).
const folder = "/proc/self/fd"

// CloseInherited closes all descriptors that this process has inherited, except
// 0 to 2 and those in keep. It marks those in keep as close-on-exec.
//
// An inherited descriptor has no close-on-exec flag, since exec would have closed
// it. All descriptors that Go's runtime and library open have the flag, so they
// stay open. A file that C code or a call without O_CLOEXEC has opened would be
// closed too: the caller calls CloseInherited before it opens any.
func CloseInherited(keep ...int) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("close inherited files: %w", err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			return fmt.Errorf("close inherited files: %w", err)
		}
		if fd <= unix.Stderr {
			continue
		}
		if err := closeInherited(fd, slices.Contains(keep, fd)); err != nil {
			return fmt.Errorf("close inherited file %d: %w", fd, err)
		}
	}
	return nil
}

func closeInherited(fd int, keep bool) error {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	switch {
	case errors.Is(err, unix.EBADF): // the descriptor by which CloseInherited has read the folder
		return nil
	case err != nil:
		return err
	case flags&unix.FD_CLOEXEC != 0:
		return nil
	case keep:
		unix.CloseOnExec(fd)
		return nil
	}
	return unix.Close(fd)
}
