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

// runDir is a tmpfs: what is in it ends with the machine.
const runDir = "/run"

// mountRun mounts a tmpfs on /run. With keep it has what the image has there:
// images of databases and servers bring the folder of their socket along,
// with its owner, and docker shows it to them.
func (m *machine) mountRun(keep bool) error {
	run := mount{kind: "tmpfs", target: runDir, flags: unix.MS_NOSUID | unix.MS_NODEV, data: "mode=755"}
	if err := makePoint(runDir, m.config.ReadOnly); err != nil {
		return fmt.Errorf("mount %s: %w", runDir, err)
	}
	image, err := os.OpenRoot(runDir)
	if err != nil {
		return fmt.Errorf("mount %s: %w", runDir, err)
	}
	defer image.Close()
	if err := mountAll([]mount{run}, m.config.ReadOnly, nil); err != nil {
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

// Bounds of what is copied into memory.
const (
	maxCopies   = 2000
	maxCopySize = 64 << 10 // bytes of one file
)

// copyTree copies folders, symlinks and small files with mode and owner, and
// counts what it left out.
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
			left++ // its folder was beyond maxCopies
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

// copyOwner comes before the mode, which a change of owner takes bits from.
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
