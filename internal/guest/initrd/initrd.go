// Package initrd writes a machine's initramfs. It has two parts: one that all
// machines of a kernel share, with the guest program and the kernel's modules,
// and a small one with the machine's secrets. The kernel unpacks archives that
// follow each other in one file
// (Documentation/driver-api/early-userspace/buffer-format.rst), so a machine's
// initramfs is the shared part followed by its own.
//
// The same input gives the same bytes. The archives are not compressed, because
// compression did not change the time of a boot.
package initrd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"

	"github.com/banger-vm/banger/internal/guest"
)

// A Module is a decompressed kernel module.
type Module struct {
	Name string // name of its file in guest.ModulesDir
	Data []byte
}

// File types of a mode, S_IFMT of inode(7).
const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeChar = 0o020000
)

// Base writes the part that the machines of a kernel share: program as /init,
// the modules, and the folders and the device that program needs before it has
// mounted anything.
func Base(w io.Writer, program []byte, modules []Module) error {
	a := newArchive(w)
	for _, dir := range []string{"dev", "proc", "sys", "sysroot", dirOf(guest.ConfigPath), dirOf(guest.ModulesDir + "/")} {
		a.add(cpio.Info{Name: dir, Mode: typeDir | 0o755, NLink: 2}, nil)
	}
	// Without /dev/console the kernel starts /init with no standard output.
	a.add(cpio.Info{Name: "dev/console", Mode: typeChar | 0o600, NLink: 1, Rmajor: 5, Rminor: 1}, nil)
	a.add(cpio.Info{Name: "init", Mode: typeFile | 0o755, NLink: 1}, program)
	seen := map[string]bool{}
	for _, m := range modules {
		if m.Name == "" || m.Name == "." || m.Name == ".." || strings.ContainsAny(m.Name, "/\x00") || seen[m.Name] {
			return fmt.Errorf("write initramfs: module name %q", m.Name)
		}
		seen[m.Name] = true
		a.add(cpio.Info{Name: relative(path.Join(guest.ModulesDir, m.Name)), Mode: typeFile | 0o600, NLink: 1}, m.Data)
	}
	return a.close()
}

// Machine writes one machine's own part, which holds its private keys. It
// follows the output of Base.
func Machine(w io.Writer, c guest.Config) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("write initramfs: %w", err)
	}
	a := newArchive(w)
	a.add(cpio.Info{Name: dirOf(guest.ConfigPath), Mode: typeDir | 0o700, NLink: 2}, nil)
	a.add(cpio.Info{Name: relative(guest.ConfigPath), Mode: typeFile | 0o600, NLink: 1}, b)
	return a.close()
}

// relative returns a guest path in the form that archives use.
func relative(p string) string { return strings.TrimPrefix(p, "/") }

func dirOf(p string) string { return relative(path.Dir(p)) }

// blockSize is the unit of an archive's length in bytes, as in cpio(1). The
// kernel requires a multiple of 4 before the next archive.
const blockSize = 512

// An archive numbers its files and keeps the first error.
type archive struct {
	w   *counter
	rec cpio.RecordWriter
	ino uint64
	err error
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func newArchive(w io.Writer) *archive {
	c := &counter{w: w}
	return &archive{w: c, rec: cpio.Newc.Writer(c)}
}

// add writes one file, owned by root and with a modification time of 0.
func (a *archive) add(info cpio.Info, data []byte) {
	if a.err != nil {
		return
	}
	a.ino++
	info.Ino, info.FileSize = a.ino, uint64(len(data))
	rec := cpio.Record{Info: info}
	if data != nil {
		rec.ReaderAt = bytes.NewReader(data)
	}
	a.err = a.rec.WriteRecord(rec)
}

func (a *archive) close() error {
	if a.err == nil {
		a.err = cpio.WriteTrailer(a.rec)
	}
	if rest := a.w.n % blockSize; a.err == nil && rest != 0 {
		_, a.err = a.w.Write(make([]byte, blockSize-rest))
	}
	if a.err != nil {
		return fmt.Errorf("write initramfs: %w", a.err)
	}
	return nil
}
