package build

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/tree"
)

// bodyBytes returns the number of bytes that the data of the regular files of merged
// takes, in whole blocks. It does not count files whose bodies are in the spool of layer except.
func bodyBytes(merged *tree.Tree, except int) (sum int64) {
	for id := tree.Root; id < merged.EndID(); id++ {
		if merged.Type(id) != tree.Regular {
			continue
		}
		in := merged.Inode(id)
		switch {
		case in.Body.Layer == except:
		case in.Body.Runs == nil:
			sum += wholeBlocks(in.Size)
		default:
			for _, r := range in.Body.Runs {
				sum += wholeBlocks(r.Length)
			}
		}
	}
	return sum
}

func wholeBlocks(bytes int64) int64 {
	return (bytes + tree.BlockSize - 1) / tree.BlockSize * tree.BlockSize
}

// checkSpace returns ENOSPC if the file system of folder has less than need bytes
// or fewer than files inodes free. A later write may still run out of space, because
// other programs write too.
func checkSpace(folder string, need, files int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(folder, &st); err != nil {
		return fmt.Errorf("find free space: %w", err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < need {
		return fmt.Errorf("%d MiB are needed and %d MiB free: %w", need>>20+1, free>>20, syscall.ENOSPC)
	}
	// A file system without a fixed number of inodes reports 0 files.
	if st.Files > 0 && st.Ffree < uint64(files) {
		return fmt.Errorf("%d files are needed and %d inodes free: %w", files, st.Ffree, syscall.ENOSPC)
	}
	return nil
}
