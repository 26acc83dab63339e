package build

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/tree"
)

// bodyBytes returns the number of bytes of data in the regular files of merged. It
// does not count files whose bodies are in the spool of layer except.
func bodyBytes(merged *tree.Tree, except int) (sum int64) {
	for id := tree.Root; id < merged.EndID(); id++ {
		if merged.Type(id) != tree.Regular {
			continue
		}
		in := merged.Inode(id)
		switch {
		case in.Body.Layer == except:
		case in.Body.Runs == nil:
			sum += in.Size
		default:
			for _, r := range in.Body.Runs {
				sum += r.Length
			}
		}
	}
	return sum
}

// checkSpace returns ENOSPC if the file system of folder has less than need bytes
// free. A later write may still run out of space, because other programs write too.
func checkSpace(folder string, need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return fmt.Errorf("find free space: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%d MiB are needed and %d MiB free: %w", need>>20+1, free>>20, syscall.ENOSPC)
	}
	return nil
}
