package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// prepareRoot makes the mounts that programs expect in the root file system. It
// changes the root to it first, so that the image's symlinks resolve as they do
// for the image's programs.
func (m *machine) prepareRoot() error {
	outside, err := os.Open("/")
	if err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	defer outside.Close()
	if err := changeRoot(control.Sysroot); err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	if err := m.populateRoot(); err != nil {
		return err
	}
	if err := outside.Chdir(); err != nil {
		return fmt.Errorf("leave root file system: %w", err)
	}
	if err := changeRoot("."); err != nil {
		return fmt.Errorf("leave root file system: %w", err)
	}
	return nil
}

func changeRoot(dir string) error {
	if err := unix.Chroot(dir); err != nil {
		return err
	}
	return unix.Chdir("/")
}

func (m *machine) populateRoot() error {
	if m.config.FilesOnly {
		return m.finishOverlay(mountAll(kernelMounts()[:1], m.locked(), nil))
	}
	own := m.config.Init == guest.InitBanger
	list := append(kernelMounts(), rootMounts()...)
	if own {
		list = append(list, initMounts()...)
	}
	if err := mountAll(list, m.locked(), m.note); err != nil {
		return err
	}
	if err := linkDev(); err != nil {
		return err
	}
	if err := m.mountRun(own); err != nil {
		if !m.locked() || !errors.Is(err, errNoPoint) {
			return err
		}
		m.note("%v", err)
	}
	if !m.locked() {
		m.makeFolders()
	}
	if err := m.mountModules(); err != nil {
		return err
	}
	if err := setUpNetwork(&m.config.Network); err != nil {
		return err
	}
	return m.finishOverlay(m.setNames())
}

// finishOverlay makes the overlay read-only, if there is one and err is nil. It
// returns err otherwise.
func (m *machine) finishOverlay(err error) error {
	if err != nil || !m.config.Overlay {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make overlay read-only: %w", err)
	}
	return nil
}

// locked reports whether files cannot be created in the root file system.
func (m *machine) locked() bool { return m.config.ReadOnly && !m.config.Overlay }

// modulesDir is the folder in which programs look for the kernel's modules.
const modulesDir = "/lib/modules"

// mountModules makes the kernel's modules visible to the image's programs. It
// skips an image without /lib, which has no program to load them.
func (m *machine) mountModules() error {
	if !m.config.ModulesDisk {
		return nil
	}
	if _, err := os.Stat(path.Dir(modulesDir)); errors.Is(err, fs.ErrNotExist) {
		m.note("no %s for the kernel's modules", path.Dir(modulesDir))
		return nil
	}
	if err := makePoint(modulesDir, m.locked()); err != nil {
		m.note("kernel's modules not mounted: %v", err)
		return nil
	}
	d, err := findDisk("/sys/block", guest.ModulesSerial, diskWait)
	if err != nil {
		return err
	}
	disk, err := m.privateDir("modules")
	if err != nil {
		return fmt.Errorf("mount modules: %w", err)
	}
	if err := unix.Mount(d.path(), disk, "ext4", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount modules from %s: %w", d.path(), err)
	}
	if err := unix.Mount(path.Join(disk, modulesDir), modulesDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount modules from %s: %w", d.path(), err)
	}
	// The bind mount keeps the file system in use.
	if err := unix.Unmount(disk, 0); err != nil {
		return fmt.Errorf("mount modules: %w", err)
	}
	return nil
}

// privateDir creates a folder for banger's own files on a tmpfs. The folder is
// below /run/banger, or below /dev/.banger if a read-only image has no /run.
func (m *machine) privateDir(name string) (string, error) {
	dir := path.Join(runDir, "banger", name)
	if err := os.MkdirAll(dir, 0o755); err == nil {
		return dir, nil
	} else if !m.locked() {
		return "", err
	}
	dir = path.Join("/dev/.banger", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// switchRoot moves the root from the initramfs to the root file system. It
// removes the files of the initramfs first, because the kernel keeps them in
// memory. MS_MOVE also moves the root of the kernel's threads, which start
// programs such as modprobe.
func switchRoot() error {
	for _, target := range []string{"/proc", "/sys", "/dev"} {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("leave initramfs: unmount %s: %w", target, err)
		}
	}
	if err := errors.Join(os.Remove("/init"), os.RemoveAll(path.Dir(guest.ConfigPath))); err != nil {
		return fmt.Errorf("leave initramfs: %w", err)
	}
	if err := unix.Chdir(control.Sysroot); err != nil {
		return fmt.Errorf("leave initramfs: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("leave initramfs: %w", err)
	}
	if err := changeRoot("."); err != nil {
		return fmt.Errorf("leave initramfs: %w", err)
	}
	return nil
}

// execInit replaces process 1 by the image's init, on the console.
func execInit(args []string) error {
	console, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start init: open /dev/console: %w", err)
	}
	for fd := range 3 {
		if err := unix.Dup3(console, fd, 0); err != nil {
			return fmt.Errorf("start init: %w", err)
		}
	}
	// An init keeps the kernel's lower limit, since it may pass it on to programs
	// that use select(2), and may raise it.
	const lower = 1024 // INR_OPEN_CUR of linux/fs.h
	limit := syscall.Rlimit{Cur: lower, Max: guest.MaxOpenFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	// The kernel sets HOME and TERM for an init.
	env := []string{"HOME=/", "TERM=linux", "PATH=" + guest.DefaultPath}
	return fmt.Errorf("start init %s: %w", args[0], unix.Exec(args[0], args, env))
}
