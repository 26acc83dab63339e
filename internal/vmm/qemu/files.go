package qemu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/vmm"
)

// files holds the files that QEMU inherits.
type files struct{ inherited []*os.File }

func (f *files) close() {
	for _, file := range f.inherited {
		file.Close() // files that are closed already do no harm
	}
}

func (f *files) add(file *os.File, err error) error {
	if err == nil {
		f.inherited = append(f.inherited, file)
	}
	return err
}

// openFiles opens the files that QEMU inherits, in the order of its
// descriptors. If it fails, it returns the files that it has opened.
func openFiles(ctx context.Context, cfg *vmm.Config, others bool) (*files, error) {
	f := &files{}
	for _, path := range []string{cfg.Kernel, cfg.Initrd} {
		if err := f.add(openBootFile(path, others)); err != nil {
			return f, err
		}
	}
	for _, name := range Sockets() {
		if err := f.add(listen(ctx, cfg.Dir, name)); err != nil {
			return f, err
		}
	}
	for _, d := range cfg.Disks {
		if err := f.add(openDisk(d)); err != nil {
			return f, err
		}
		if d.Backing == "" {
			continue
		}
		if err := f.add(openDisk(vmm.Disk{Path: d.Backing, ReadOnly: true})); err != nil {
			return f, err
		}
	}
	return f, nil
}

// openBootFile opens a file that QEMU reopens by the descriptor's path. Only
// the mode of the file matters for that, not the folders of its path. If others
// is set and other users may not read the file, openBootFile returns a copy in
// memory.
func openBootFile(path string, others bool) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if !others || st.Mode()&0o004 != 0 {
		return f, nil
	}
	defer f.Close()
	fd, err := unix.MemfdCreate("banger-boot", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copy %s: %w", path, err)
	}
	memory := os.NewFile(uintptr(fd), path)
	_, err = io.Copy(memory, f)
	if err == nil {
		err = memory.Chmod(0o444)
	}
	if err != nil {
		memory.Close()
		return nil, fmt.Errorf("copy %s: %w", path, err)
	}
	return memory, nil
}

// openDisk opens the file or device of a disk with the access that QEMU needs.
func openDisk(d vmm.Disk) (*os.File, error) {
	flags := os.O_RDWR
	if d.ReadOnly {
		flags = os.O_RDONLY
	}
	want := "a regular file"
	if d.Device {
		// O_EXCL fails if the device is in use, and keeps others from mounting
		// it (open(2)).
		flags |= os.O_EXCL
		want = "a block device"
	}
	f, err := os.OpenFile(d.Path, flags, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != diskType(d) {
		err = &os.PathError{Op: "open", Path: d.Path, Err: errors.New("not " + want)}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func diskType(d vmm.Disk) fs.FileMode {
	if d.Device {
		return fs.ModeDevice
	}
	return 0
}
