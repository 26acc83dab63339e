package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// overlayDir is a folder in the initramfs. It stays hidden below the machine's
// root.
const overlayDir = "/overlay"

// mountOverlay mounts an overlay over the read-only file system at root. Its
// upper layer is a tmpfs in the new folder dir.
func mountOverlay(root, dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=700"); err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	info, err := os.Stat(root)
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	upper, work := path.Join(dir, "upper"), path.Join(dir, "work")
	// The root folder of an overlay has the attributes of the upper layer.
	err = errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755), copyOwner(info, upper), os.Chtimes(upper, info.ModTime(), info.ModTime()))
	if err != nil {
		return fmt.Errorf("mount overlay: %w", err)
	}
	options := "lowerdir=" + root + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		if errors.Is(err, unix.ENODEV) {
			err = errors.New("the kernel has no overlay file system")
		}
		return fmt.Errorf("mount overlay for the mount points that the read-only image lacks: %w", err)
	}
	return nil
}

// makeFolders creates the folders of the configuration that are missing. If one
// cannot be created, it notes the error, because the image's programs may work
// without it.
func (m *machine) makeFolders() {
	for _, dir := range m.config.Folders {
		if err := makeFolder(dir); err != nil {
			m.note("%s not created: %v", dir, err)
		}
	}
}

// makeFolder creates a folder and its parents as root's, with mode 0755, unless
// they exist. Unlike os.MkdirAll, it creates the target of a symlink.
func makeFolder(dir string) error {
	const maxLinks = 40 // as in Linux
	at, links := "/", 0
	for parts := splitPath(dir); len(parts) > 0; {
		next := path.Join(at, parts[0])
		parts = parts[1:]
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = os.Mkdir(next, 0o755)
		case err == nil && info.Mode().Type() == fs.ModeSymlink:
			var target string
			if target, err = os.Readlink(next); err != nil {
				return err
			}
			if links++; links > maxLinks {
				return unix.ELOOP
			}
			if next = at; path.IsAbs(target) {
				next = "/"
			}
			parts = append(splitPath(target), parts...)
		case err == nil && !info.IsDir():
			err = &fs.PathError{Op: "mkdir", Path: next, Err: unix.ENOTDIR}
		}
		if err != nil {
			return err
		}
		at = next
	}
	return nil
}

func splitPath(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return r == '/' })
}
