// Package kerneltest makes small kernels, modules, packages and archives for
// tests.
package kerneltest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// Release is the release of the kernel in Files.
const Release = "6.1.0-test"

// elfFile describes a little-endian ELF file for x86-64 with one segment and
// one section besides the table of names.
type elfFile struct {
	kind        elf.Type
	note        []byte // content of the PT_NOTE segment
	section     string
	sectionData []byte
	tail        string
}

func (f elfFile) bytes() []byte {
	const headSize, progSize, sectSize = 64, 56, 64
	names := []byte("\x00.shstrtab\x00" + f.section + "\x00")
	noteAt := headSize + progSize
	dataAt := noteAt + len(f.note)
	namesAt := dataAt + len(f.sectionData)
	sectionsAt := namesAt + len(names)
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	head := elf.Header64{
		Type: uint16(f.kind), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: headSize, Shoff: uint64(sectionsAt),
		Ehsize: headSize, Phentsize: progSize, Phnum: 1, Shentsize: sectSize, Shnum: 3, Shstrndx: 1,
	}
	copy(head.Ident[:], "\x7fELF\x02\x01\x01")
	put(head)
	put(elf.Prog64{Type: uint32(elf.PT_NOTE), Off: uint64(noteAt), Filesz: uint64(len(f.note)), Memsz: uint64(len(f.note)), Align: 4})
	b.Write(f.note)
	b.Write(f.sectionData)
	b.Write(names)
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: uint64(namesAt), Size: uint64(len(names))})
	put(elf.Section64{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: uint64(dataAt), Size: uint64(len(f.sectionData))})
	b.WriteString(f.tail)
	return b.Bytes()
}

// xenNote returns the note with a PVH entry.
func xenNote() []byte {
	le := binary.LittleEndian
	note := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 4), 4), 18)
	return le.AppendUint32(append(note, "Xen\x00"...), 0x1000000)
}

// VMLinux returns a kernel as an ELF file, with a PVH entry if pvh is set.
func VMLinux(release string, pvh bool) []byte {
	f := elfFile{kind: elf.ET_EXEC, section: ".text", sectionData: bytes.Repeat([]byte("code"), 1000)}
	f.tail = "\x00Linux version " + release + " (gcc) #1\x00"
	if pvh {
		f.note = xenNote()
	}
	return f.bytes()
}

// Module returns a module whose .modinfo section has the given tags.
func Module(tags ...string) []byte {
	return elfFile{kind: elf.ET_REL, section: ".modinfo", sectionData: []byte(strings.Join(tags, "\x00") + "\x00")}.bytes()
}

// BzImage returns a bzImage with the given payload.
func BzImage(release string, payload []byte) []byte {
	const setupSectors = 4
	le := binary.LittleEndian
	out := make([]byte, (setupSectors+1)*512)
	out[0x1f1] = setupSectors
	copy(out[0x202:], "HdrS")
	le.PutUint16(out[0x206:], 0x020f)
	le.PutUint16(out[0x20e:], 0x400)
	le.PutUint16(out[0x236:], 1)
	le.PutUint32(out[0x248:], 16)
	le.PutUint32(out[0x24c:], uint32(len(payload)))
	copy(out[0x600:], release+" (builder@host) #1 SMP\x00")
	return slices.Concat(out, make([]byte, 16), payload)
}

// Compress returns data in a format of package compression, or as it is if
// format is "none".
func Compress(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "none":
		return data
	case "gzip":
		w = gzip.NewWriter(&b)
	case "zstd":
		w, err = zstd.NewWriter(&b)
	case "xz":
		w, err = xz.NewWriter(&b)
	case "lz4":
		z := lz4.NewWriter(&b)
		err = z.Apply(lz4.LegacyOption(true))
		w = z
	default:
		t.Fatalf("no format %q", format)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Payload compresses data as the build of Linux does: it appends the size of
// data, except to gzip.
func Payload(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	out := Compress(t, format, data)
	if format == "gzip" || format == "none" {
		return out
	}
	return binary.LittleEndian.AppendUint32(out, uint32(len(data)))
}

// A File is an entry of a tar: a directory if Name ends in a slash, a symlink if
// Target is set.
type File struct{ Name, Content, Target string }

// Tar returns a tar of files.
func Tar(t testing.TB, files ...File) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.Name, Mode: 0o644, Size: int64(len(f.Content)), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(f.Name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case f.Target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.Target
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.Content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Ar returns an ar archive. The arguments are the names and contents of its
// members in turn.
func Ar(parts ...string) []byte {
	out := []byte("!<arch>\n")
	for i := 0; i+1 < len(parts); i += 2 {
		out = fmt.Appendf(out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", parts[i], 0, 0, 0, "100644", len(parts[i+1]))
		out = append(out, parts[i+1]...)
		if len(parts[i+1])%2 == 1 {
			out = append(out, '\n')
		}
	}
	return out
}

// Deb returns a Debian package of files whose members are compressed in the
// given format.
func Deb(t testing.TB, control, format string, files ...File) []byte {
	t.Helper()
	ends := map[string]string{"none": "", "gzip": ".gz", "xz": ".xz", "zstd": ".zst"}
	return Ar("debian-binary", "2.0\n",
		"control.tar"+ends[format], string(Compress(t, format, Tar(t, File{Name: "./control", Content: control}))),
		"data.tar"+ends[format], string(Compress(t, format, Tar(t, files...))))
}

// Control is the control file of a package.
const Control = "Package: linux-image-test\nVersion: 6.1-1\nDepends: kmod\n"

// Config is the configuration of the kernel in Files.
const Config = "CONFIG_EXT4_FS=y\nCONFIG_DEVTMPFS=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_FUSE_FS is not set\n"

// Files returns the files of a kernel's package: a bzImage that contains a
// kernel with a PVH entry, its configuration, and eight modules.
func Files(t testing.TB) []File {
	t.Helper()
	mods := "./lib/modules/" + Release + "/"
	return []File{
		{Name: "./"}, {Name: "./boot/"},
		{Name: "./boot/vmlinuz-" + Release, Content: string(BzImage(Release, Payload(t, "lz4", VMLinux(Release, true))))},
		{Name: "./boot/config-" + Release, Content: Config},
		{Name: "./lib/"}, {Name: "./lib/modules/"}, {Name: mods},
		{Name: mods + "build", Target: "/usr/src/linux-headers"},
		{Name: mods + "modules.builtin", Content: "kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\n"},
		{Name: mods + "kernel/"},
		{Name: mods + "kernel/virtio.ko", Content: string(Module("name=virtio", "depends="))},
		{Name: mods + "kernel/virtio-ring.ko.xz", Content: string(Compress(t, "xz", Module("depends=virtio")))},
		{Name: mods + "kernel/virtio_blk.ko.zst", Content: string(Compress(t, "zstd", Module("depends=virtio,virtio-ring", "alias=virtio:d00000002v*")))},
		{Name: mods + "kernel/soft.ko.gz", Content: string(Compress(t, "gzip", Module("softdep=pre: crypto-sum nothere post: late")))},
		{Name: mods + "kernel/sum.ko", Content: string(Module("alias=crypto-sum"))},
		{Name: mods + "kernel/cycle.ko", Content: string(Module("depends=cycle2"))},
		{Name: mods + "kernel/cycle2.ko", Content: string(Module("depends=cycle"))},
		{Name: mods + "kernel/lost.ko", Content: string(Module("depends=nowhere"))},
	}
}

// WriteFile writes data into a new folder and returns the path of the file.
func WriteFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ReadFile returns the content of the file path.
func ReadFile(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Leftovers returns the names in a store's folder dir that are not those of
// kernels.
func Leftovers(t testing.TB, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if len(e.Name()) != 64 {
			out = append(out, e.Name())
		}
	}
	return out
}
