package source

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/compression"
	"golang.org/x/sys/unix"
)

// fetchHost adds a kernel that is installed on this host. If release is "", it
// adds the running one.
func (f *fetcher) fetchHost(ctx context.Context, release string) error {
	if release == "" {
		var err error
		if release, err = runningRelease(); err != nil {
			return err
		}
	}
	f.origin, f.release = "host:"+release, release
	files, err := installed("/", release)
	if err != nil {
		return err
	}
	return f.fetchFiles(ctx, files)
}

// installed returns the files of a kernel that is installed below root. It
// returns an error if the kernel itself does not exist, or if a file exists but
// cannot be read.
func installed(root, release string) (files Files, err error) {
	modules := filepath.Join(root, "lib/modules", release)
	for _, files.Kernel = range []string{filepath.Join(root, "boot/vmlinuz-"+release), filepath.Join(modules, "vmlinuz")} {
		if err = checkReadable(files.Kernel); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return files, fmt.Errorf("neither /boot/vmlinuz-%s nor /lib/modules/%s/vmlinuz: %w", release, release, err)
	}
	if err != nil {
		return files, err
	}
	for _, optional := range []struct {
		to   *string
		name string
	}{{&files.Config, filepath.Join(root, "boot/config-"+release)}, {&files.Modules, modules}} {
		switch err := checkReadable(optional.name); {
		case err == nil:
			*optional.to = optional.name
		case !errors.Is(err, fs.ErrNotExist):
			return files, err
		}
	}
	return files, nil
}

func runningRelease() (string, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "", fmt.Errorf("find release of the running kernel: %w", err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	if !kernel.IsRelease(release) {
		return "", fmt.Errorf("running kernel has release %.80q", release)
	}
	return release, nil
}

func checkReadable(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return f.Close()
}

// fetchFiles adds separate files. It packs them into a tar, so that the rest of
// the package handles archives only.
func (f *fetcher) fetchFiles(ctx context.Context, files Files) (err error) {
	data, err := readFile(files.Kernel, maxKernel)
	if err != nil {
		return err
	}
	info, err := identify(data)
	if err != nil {
		return fmt.Errorf("%s: %w", files.Kernel, err)
	}
	name := filepath.Join(f.scratch, "files.tar")
	out, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	buf := bufio.NewWriterSize(out, 1<<20)
	w := tar.NewWriter(buf)
	err = writeTarFile(w, "boot/vmlinuz-"+info.release, data)
	if err == nil && files.Config != "" {
		var config []byte
		if config, err = readFile(files.Config, maxConfig); err == nil {
			err = writeTarFile(w, "boot/config-"+info.release, config)
		}
	}
	if err == nil && files.Modules != "" {
		err = writeTarFolder(ctx, w, files.Modules, info.release)
	}
	if err = errors.Join(err, w.Close(), buf.Flush()); err != nil {
		return err
	}
	_, err = f.add(ctx, "tar:"+name, f.localOptions())
	return errors.Join(err, os.Remove(name))
}

// readFile returns the content of a regular file. It returns an error if that
// has more than limit bytes.
func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s: not a regular file", name), err)
	}
	data, err := compression.ReadAll(f, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// writeTarFolder writes the modules in the folder dir as lib/modules/RELEASE. If
// dir has a folder lib/modules/RELEASE itself, it writes that one.
func writeTarFolder(ctx context.Context, w *tar.Writer, dir, release string) error {
	for _, root := range moduleRoots {
		inside := filepath.Join(dir, root, release)
		if info, err := os.Stat(inside); err == nil && info.IsDir() {
			dir = inside
			break
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return fmt.Errorf("read %s: %w", dir, err)
		}
		top, _, _ := strings.Cut(name, "/")
		switch {
		case isForeign(top) && d.IsDir():
			return fs.SkipDir
		case isForeign(top):
			return nil
		}
		if err := writeTarEntry(w, root, name, path.Join("lib/modules", release, name), d); err != nil {
			return fmt.Errorf("read %s: %s: %w", dir, name, err)
		}
		return nil
	})
}

func writeTarEntry(w *tar.Writer, root *os.Root, from, to string, d fs.DirEntry) error {
	switch {
	case d.IsDir():
		return w.WriteHeader(tarHeader(to, tar.TypeDir, 0))
	case d.Type() == fs.ModeSymlink:
		target, err := root.Readlink(from)
		if err != nil {
			return err
		}
		return w.WriteHeader(symlinkHeader(to, target))
	case !d.Type().IsRegular():
		return errors.New("neither a file, a folder nor a symlink")
	}
	f, err := root.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := w.WriteHeader(tarHeader(to, tar.TypeReg, info.Size())); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
