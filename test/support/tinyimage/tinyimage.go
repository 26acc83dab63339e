// Package tinyimage makes the disks of small images for tests.
package tinyimage

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/image/build"
)

// A File is an entry of an image.
type File struct {
	Name, Content string // Content of a symlink is its target
	Mode          int64
	Kind          byte // a type flag of archive/tar
}

// Entry returns a File. content of a symlink is its target.
func Entry(name, content string, mode int64, kind byte) File { return File{name, content, mode, kind} }

// Machines of ELF files (elf.h).
const (
	AMD64 = 62  // EM_X86_64
	ARM64 = 183 // EM_AARCH64
)

// Program returns the head of a static ELF executable for a machine.
func Program(machine uint16) string {
	const typeExec, headerSize, progSize = 2, 64, 56
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = binary.LittleEndian.AppendUint16(b, typeExec)
	b = binary.LittleEndian.AppendUint16(b, machine)
	b = binary.LittleEndian.AppendUint32(b, 1)
	for _, v := range []uint64{0x1000, headerSize, 0} {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	b = binary.LittleEndian.AppendUint32(b, 0)
	for _, v := range []uint16{headerSize, progSize, 0, 0, 0, 0} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return string(b)
}

// Disk builds the ext4 disk of an image that has files, and returns its path.
func Disk(t testing.TB, files []File) string {
	t.Helper()
	dir := t.TempDir()
	source, out := filepath.Join(dir, "image.tar"), filepath.Join(dir, "disk")
	if err := os.WriteFile(source, archive(t, files), 0o600); err != nil {
		t.Fatal(err)
	}
	var o build.Options
	o.Pull.CacheDir = filepath.Join(dir, "cache")
	if _, err := build.Convert(t.Context(), "tar:"+source, out, o); err != nil {
		t.Fatal(err)
	}
	return out
}

func archive(t testing.TB, files []File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Typeflag: f.Kind, Mode: f.Mode, Size: int64(len(f.Content))}
		if f.Kind == tar.TypeSymlink {
			h.Linkname, h.Size = f.Content, 0
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if f.Kind == tar.TypeReg {
			if _, err := w.Write([]byte(f.Content)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
