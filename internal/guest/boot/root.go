package boot

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/guest/control"
)

// prepareRoot mounts in the root file system what programs expect there. It
// does so from within, so that the image's symlinks lead where they do for
// the image's programs.
func (m *machine) prepareRoot() error {
	outside, err := os.Open("/")
	if err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	defer outside.Close()
	if err := changeRoot(control.Sysroot); err != nil {
		return fmt.Errorf("enter root file system: %w", err)
	}
	if err := m.fillRoot(); err != nil {
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

func (m *machine) fillRoot() error {
	own := m.config.Init == guest.InitBanger
	list := append(kernelMounts(), rootMounts()...)
	if own {
		list = append(list, initMounts()...)
	}
	if err := mountAll(list, m.config.ReadOnly, m.note); err != nil {
		return err
	}
	if err := linkDev(); err != nil {
		return err
	}
	if err := m.mountRun(own); err != nil {
		if !m.config.ReadOnly || !errors.Is(err, errNoPoint) {
			return err
		}
		m.note("%v", err)
	}
	if err := m.mountModules(); err != nil {
		return err
	}
	if err := setUpNetwork(&m.config.Network); err != nil {
		return err
	}
	return m.setNames()
}

// modulesDir is where programs look for the kernel's modules.
const modulesDir = "/lib/modules"

// mountModules shows the kernel's modules to the image's programs. An image
// that has nothing that could load them goes without.
func (m *machine) mountModules() error {
	if !m.config.ModulesDisk {
		return nil
	}
	if _, err := os.Stat(path.Dir(modulesDir)); errors.Is(err, fs.ErrNotExist) {
		m.note("no %s for the kernel's modules", path.Dir(modulesDir))
		return nil
	}
	if err := makePoint(modulesDir, m.config.ReadOnly); err != nil {
		m.note("kernel's modules not mounted: %v", err)
		return nil
	}
	d, err := findDisk("/sys/block", guest.ModulesSerial, diskWait)
	if err != nil {
		return err
	}
	disk, err := m.ownDir("modules")
	if err != nil {
		return fmt.Errorf("mount modules: %w", err)
	}
	if err := unix.Mount(d.path(), disk, "ext4", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, ""); err != nil {
		return fmt.Errorf("mount modules from %s: %w", d.path(), err)
	}
	if err := unix.Mount(path.Join(disk, modulesDir), modulesDir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount modules from %s: %w", d.path(), err)
	}
	// The bind mount keeps the file system.
	if err := unix.Unmount(disk, 0); err != nil {
		return fmt.Errorf("mount modules: %w", err)
	}
	return nil
}

// ownDir makes a folder of banger's own on a tmpfs. It is /run/banger, or
// below /dev where a read-only image has no /run.
func (m *machine) ownDir(name string) (string, error) {
	dir := path.Join(runDir, "banger", name)
	if err := os.MkdirAll(dir, 0o755); err == nil {
		return dir, nil
	} else if !m.config.ReadOnly {
		return "", err
	}
	dir = path.Join("/dev/.banger", name)
	return dir, os.MkdirAll(dir, 0o755)
}

// switchRoot leaves the initramfs for good, and frees what it has left: the
// kernel keeps its files in memory. The root of the kernel's threads, which
// start programs such as modprobe, moves too.
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

// execInit becomes the image's init, on the console.
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
	// HOME and TERM are what the kernel gives to an init.
	env := []string{"HOME=/", "TERM=linux", "PATH=" + guest.DefaultPath}
	return fmt.Errorf("start init %s: %w", args[0], unix.Exec(args[0], args, env))
}
