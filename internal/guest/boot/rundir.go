package boot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"
)

// runDir is the mount point of a tmpfs; its files end with the machine.
const runDir = "/run"

// mountRun mounts a tmpfs on /run. If keep is set, it copies the image's own
// files there. Images of databases and servers have the folder of their socket
// in /run, with its owner, and docker shows it to them.
func (m *machine) mountRun(keep bool) error {
	run := mount{kind: "tmpfs", target: runDir, flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=755"}
	if err := makePoint(runDir, m.locked()); err != nil {
		return fmt.Errorf("mount %s: %w", runDir, err)
	}
	image, err := os.OpenRoot(runDir)
	if err != nil {
		return fmt.Errorf("mount %s: %w", runDir, err)
	}
	defer image.Close()
	if err := mountAll([]mount{run}, m.locked(), nil); err != nil {
		return err
	}
	if !keep {
		return nil
	}
	left, err := copyTree(image, runDir)
	if err != nil {
		return fmt.Errorf("copy the image's %s: %w", runDir, err)
	}
	if left > 0 {
		m.note("%d files of the image's %s left out", left, runDir)
	}
	return nil
}

// Limits of the files that are copied into memory.
const (
	maxCopies   = 2000
	maxCopySize = 64 << 10 // bytes per file
)

// copyTree copies folders, symlinks and small files with their modes and
// owners. It returns the number of files that it left out.
func copyTree(from *os.Root, to string) (left int, err error) {
	seen := 0
	err = fs.WalkDir(from.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name == "." {
			return nil
		}
		if seen++; seen > maxCopies {
			left++
			return nil
		}
		info, err := from.Lstat(name)
		if err != nil {
			return err
		}
		target := path.Join(to, name)
		switch {
		case info.IsDir():
			err = os.Mkdir(target, 0o700)
		case info.Mode().Type() == fs.ModeSymlink:
			err = copyLink(from, name, target)
		case info.Mode().IsRegular() && info.Size() <= maxCopySize:
			err = copyFile(from, name, target)
		default:
			left++
			return nil
		}
		if errors.Is(err, fs.ErrNotExist) {
			left++ // its folder is one of those beyond maxCopies
			return nil
		}
		if err != nil {
			return err
		}
		return copyOwner(info, target)
	})
	return left, err
}

func copyLink(from *os.Root, name, target string) error {
	to, err := from.Readlink(name)
	if err != nil {
		return err
	}
	return os.Symlink(to, target)
}

func copyFile(from *os.Root, name, target string) error {
	in, err := from.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// copyOwner copies owner and mode to target. A change of the owner clears mode
// bits, so the mode comes second.
func copyOwner(info fs.FileInfo, target string) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("owner of %s is not known", target)
	}
	if err := os.Lchown(target, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		return nil
	}
	return unix.Chmod(target, st.Mode&0o7777)
}
