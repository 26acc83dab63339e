package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/guest"
)

// inImage runs f with the folder image as its root. The root is a mount of its
// own, and f has its own mounts, hostname and network. The thread that has
// these is not used again.
func inImage(t *testing.T, image string, flags uintptr, f func() error) error {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root makes a mount namespace here")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWNET | unix.CLONE_FS); err != nil {
				return err
			}
			if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
				return err
			}
			if err := unix.Mount(image, image, "", unix.MS_BIND, ""); err != nil {
				return err
			}
			if err := unix.Mount("", image, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
				return err
			}
			if err := changeRoot(image); err != nil {
				return err
			}
			return f()
		}()
	}()
	return <-done
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// files lists the files in a folder with their content.
func files(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(name string, e os.DirEntry, err error) error {
		if err != nil || name == dir {
			return err
		}
		fmt.Fprint(&b, strings.TrimPrefix(name, dir))
		if e.Type().IsRegular() {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, "=%s", content)
		}
		fmt.Fprint(&b, " ")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func testMachine(readOnly bool) *machine {
	return &machine{config: &guest.Config{
		Version: guest.Version, Hostname: "box.example", Init: guest.InitBanger, ReadOnly: readOnly,
		Network: guest.Network{DNS: []string{"10.0.2.3"}},
	}}
}

// contains returns an error unless the file has want in its content.
func contains(name, want string) error {
	b, err := os.ReadFile(name)
	if err == nil && !strings.Contains(string(b), want) {
		err = fmt.Errorf("%s holds %q, want %q", name, b, want)
	}
	return err
}

// The image's programs see the machine's names. The image's files stay
// unchanged, except for the paths that docs/guest.md lists.
func TestPopulateRootKeepsTheImagesFiles(t *testing.T) {
	image := t.TempDir()
	write(t, filepath.Join(image, "etc/hosts"), "image")
	write(t, filepath.Join(image, "run/db/socket"), "kept")
	if err := os.Symlink("../run/resolv/resolv.conf", filepath.Join(image, "etc/resolv.conf")); err != nil {
		t.Fatal(err)
	}
	m := testMachine(false)
	err := inImage(t, image, 0, func() error {
		if err := m.populateRoot(); err != nil {
			return err
		}
		return errors.Join(
			contains("/etc/hosts", "127.0.1.1\tbox.example box\n"), contains("/etc/hostname", "box.example\n"),
			contains("/etc/resolv.conf", "nameserver 10.0.2.3\n"), contains("/proc/sys/kernel/hostname", "box.example"),
			contains("/run/db/socket", "kept"), contains("/proc/thread-self/mounts", " /dev/pts devpts "),
			contains("/proc/thread-self/mounts", " /dev/shm tmpfs "), os.WriteFile("/run/new", nil, 0o600),
		)
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.notes) > 0 {
		t.Errorf("notes %q", m.notes)
	}
	want := "/dev /etc /etc/hostname= /etc/hosts=image /etc/resolv.conf /proc /run /run/db /run/db/socket=kept /sys "
	if got := files(t, image); got != want {
		t.Errorf("the image has %s\nwant %s", got, want)
	}
}

func TestPopulateRootOfAnEmptyImage(t *testing.T) {
	image := t.TempDir()
	m := testMachine(false)
	m.config.ModulesDisk = true // the image has no /lib to mount it in
	err := inImage(t, image, 0, func() error {
		return errors.Join(m.populateRoot(), contains("/proc/sys/kernel/hostname", "box.example"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, image), "/dev /proc /run /sys "; got != want {
		t.Errorf("the image has %s, want %s", got, want)
	}
	if notes := strings.Join(m.notes, "\n"); !strings.Contains(notes, "/etc/hosts left as it is") || !strings.Contains(notes, "no /lib") {
		t.Errorf("notes %q", notes)
	}
}

func TestPopulateRootReadOnly(t *testing.T) {
	image := t.TempDir()
	err := inImage(t, image, unix.MS_RDONLY, func() error { return testMachine(true).populateRoot() })
	if !errors.Is(err, errNoPoint) || !strings.Contains(err.Error(), "/proc") {
		t.Errorf("an image without /proc: %v", err)
	}
	for _, dir := range []string{"proc", "dev"} {
		if err := os.Mkdir(filepath.Join(image, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := testMachine(true)
	write(t, filepath.Join(image, "etc/hosts"), "image")
	if err := inImage(t, image, unix.MS_RDONLY, func() error {
		return errors.Join(m.populateRoot(), contains("/etc/hosts", "box.example"))
	}); err != nil {
		t.Errorf("an image with /proc and /dev: %v", err)
	}
	if notes := strings.Join(m.notes, "\n"); !strings.Contains(notes, "/sys") || !strings.Contains(notes, "/run") {
		t.Errorf("notes %q do not name the missing mount points", notes)
	}
	if got, want := files(t, image), "/dev /etc /etc/hosts=image /proc "; got != want {
		t.Errorf("the image has %s, want %s", got, want)
	}
}

// A symlink in the image resolves as it does for the image's programs and does
// not lead out of the image.
func TestPopulateRootStaysInTheImage(t *testing.T) {
	outside, image := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "hosts"), "outside")
	write(t, filepath.Join(image, outside, "hosts"), "inside")
	write(t, filepath.Join(image, "etc/hostname"), "image")
	if err := os.Symlink(filepath.Join(outside, "hosts"), filepath.Join(image, "etc/hosts")); err != nil {
		t.Fatal(err)
	}
	err := inImage(t, image, 0, func() error {
		return errors.Join(testMachine(false).populateRoot(), contains(filepath.Join(outside, "hosts"), "box.example"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, outside); got != "/hosts=outside " {
		t.Errorf("outside there is %s", got)
	}
}

// The folders of the configuration are created as docker creates those of an
// image's volumes: as root's, and through symlinks, which stay in the image.
func TestPopulateRootCreatesFolders(t *testing.T) {
	image, outside := t.TempDir(), t.TempDir()
	write(t, filepath.Join(image, "srv/own/file"), "kept")
	write(t, filepath.Join(image, "file"), "kept")
	for name, target := range map[string]string{"data": outside + "/x", "loop": "loop", "up": "../../srv/up"} {
		if err := os.Symlink(target, filepath.Join(image, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(image, "srv/own"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := testMachine(false)
	m.config.Folders = []string{"/var/lib/db", "/srv/own", "/data/db", "/up", "/run/db", "/loop", "/file/db"}
	err := inImage(t, image, 0, func() error {
		if err := m.populateRoot(); err != nil {
			return err
		}
		for dir, mode := range map[string]os.FileMode{"/var/lib/db": 0o755, "/srv/own": 0o700, outside + "/x/db": 0o755, "/srv/up": 0o755, "/run/db": 0o755} {
			if info, err := os.Stat(dir); err != nil || !info.IsDir() || info.Mode().Perm() != mode {
				return fmt.Errorf("%s: %v, %w, want mode %v", dir, info, err, mode)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := files(t, outside); got != "" {
		t.Errorf("outside there is %s", got)
	}
	notes := strings.Join(m.notes, "\n")
	for _, want := range []string{"/loop not created", "/file/db not created"} {
		if !strings.Contains(notes, want) {
			t.Errorf("notes %q, want %q", notes, want)
		}
	}
}

// An overlay holds the mount points that a read-only image lacks. It has the
// attributes of the image's root folder, and is read-only in the end.
func TestPopulateRootUnderAnOverlay(t *testing.T) {
	if b, err := os.ReadFile("/proc/filesystems"); err != nil || !strings.Contains(string(b), "\toverlay\n") {
		t.Skip("this kernel has no overlay file system")
	}
	image := t.TempDir()
	write(t, filepath.Join(image, "etc/passwd"), "image")
	if err := os.Chmod(image, 0o711); err != nil {
		t.Fatal(err)
	}
	m := testMachine(true)
	m.config.Overlay, m.config.Folders = true, []string{"/var/lib/db"}
	err := inImage(t, image, unix.MS_RDONLY, func() error {
		if err := unix.Mount("tmpfs", "/etc", "tmpfs", 0, ""); err != nil { // the only writable place
			return err
		}
		root := "/etc/root"
		if err := os.Mkdir(root, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		if err := mountOverlay(root, "/etc/overlay"); err != nil {
			return err
		}
		if err := changeRoot(root); err != nil {
			return err
		}
		if err := m.populateRoot(); err != nil {
			return err
		}
		if info, err := os.Stat("/"); err != nil || info.Mode().Perm() != 0o711 {
			return fmt.Errorf("root folder: %v, %w", info, err)
		}
		if err := os.WriteFile("/var/lib/db/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("write to the root file system: %w, want %w", err, unix.EROFS)
		}
		return errors.Join(contains("/etc/passwd", "image"), contains("/etc/hosts", "box.example"), contains("/proc/thread-self/mounts", " /dev/shm tmpfs "))
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.notes) > 0 {
		t.Errorf("notes %q", m.notes)
	}
	if got, want := files(t, image), "/etc /etc/passwd=image "; got != want {
		t.Errorf("the image has %s, want %s", got, want)
	}
}

// A machine that boots for its files has only /proc over the image's folders.
func TestPopulateRootForFiles(t *testing.T) {
	image := t.TempDir()
	for _, name := range []string{"dev/own", "run/own", "etc/hosts"} {
		write(t, filepath.Join(image, name), "image")
	}
	m := testMachine(false)
	m.config.FilesOnly, m.config.Folders = true, []string{"/data"}
	err := inImage(t, image, 0, func() error {
		return errors.Join(m.populateRoot(), contains("/proc/thread-self/mounts", " /proc proc "), contains("/dev/own", "image"),
			contains("/run/own", "image"), contains("/etc/hosts", "image"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := files(t, image), "/dev /dev/own=image /etc /etc/hosts=image /proc /run /run/own=image "; got != want {
		t.Errorf("the image has %s, want %s", got, want)
	}
}
