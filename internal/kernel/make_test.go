package kernel

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

const testRelease = "6.1.0-test"

// elfFile makes a little-endian ELF file for x86-64 with one segment and one
// section besides the table of names.
type elfFile struct {
	kind        elf.Type
	note        []byte // of a PT_NOTE segment
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

// xenNote is the note with a PVH entry.
func xenNote() []byte {
	le := binary.LittleEndian
	note := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 4), 4), 18)
	return le.AppendUint32(append(note, "Xen\x00"...), 0x1000000)
}

func vmlinux(release string, pvh bool) []byte {
	f := elfFile{kind: elf.ET_EXEC, section: ".text", sectionData: bytes.Repeat([]byte("code"), 1000)}
	f.tail = "\x00Linux version " + release + " (gcc) #1\x00"
	if pvh {
		f.note = xenNote()
	}
	return f.bytes()
}

func module(tags ...string) []byte {
	return elfFile{kind: elf.ET_REL, section: ".modinfo", sectionData: []byte(strings.Join(tags, "\x00") + "\x00")}.bytes()
}

// bzImage makes one whose payload is given.
func bzImage(release string, payload []byte) []byte {
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

func compressed(t testing.TB, format string, data []byte) []byte {
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

// payload compresses as the kernel's build does: with the size behind all but
// gzip.
func payload(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	out := compressed(t, format, data)
	if format == "gzip" || format == "none" {
		return out
	}
	return binary.LittleEndian.AppendUint32(out, uint32(len(data)))
}

// file is an entry of a tar: a directory where the name ends in a slash, a
// symlink where target is set.
type file struct{ name, content, target string }

func tarOf(t testing.TB, files ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(f.name, "/"):
			h.Typeflag, h.Mode = tar.TypeDir, 0o755
		case f.target != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.target
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// arOf makes an ar archive of name and content in turns.
func arOf(parts ...string) []byte {
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

func debOf(t testing.TB, control, format string, files ...file) []byte {
	t.Helper()
	ends := map[string]string{"none": "", "gzip": ".gz", "xz": ".xz", "zstd": ".zst"}
	return arOf("debian-binary", "2.0\n",
		"control.tar"+ends[format], string(compressed(t, format, tarOf(t, file{name: "./control", content: control}))),
		"data.tar"+ends[format], string(compressed(t, format, tarOf(t, files...))))
}

const testControl = "Package: linux-image-test\nVersion: 6.1-1\nDepends: kmod\n"

const testConfig = "CONFIG_EXT4_FS=y\nCONFIG_DEVTMPFS=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_FUSE_FS is not set\n"

// kernelTree are the files of a kernel's package, a bzImage with a PVH kernel
// inside and five modules.
func kernelTree(t testing.TB) []file {
	t.Helper()
	mods := "./lib/modules/" + testRelease + "/"
	return []file{
		{name: "./"}, {name: "./boot/"},
		{name: "./boot/vmlinuz-" + testRelease, content: string(bzImage(testRelease, payload(t, "lz4", vmlinux(testRelease, true))))},
		{name: "./boot/config-" + testRelease, content: testConfig},
		{name: "./lib/"}, {name: "./lib/modules/"}, {name: mods},
		{name: mods + "build", target: "/usr/src/linux-headers"},
		{name: mods + "modules.builtin", content: "kernel/fs/ext4/ext4.ko\nkernel/fs/jbd2/jbd2.ko\n"},
		{name: mods + "kernel/"},
		{name: mods + "kernel/virtio.ko", content: string(module("name=virtio", "depends="))},
		{name: mods + "kernel/virtio-ring.ko.xz", content: string(compressed(t, "xz", module("depends=virtio")))},
		{name: mods + "kernel/virtio_blk.ko.zst", content: string(compressed(t, "zstd", module("depends=virtio,virtio-ring", "alias=virtio:d00000002v*")))},
		{name: mods + "kernel/soft.ko.gz", content: string(compressed(t, "gzip", module("softdep=pre: crypto-sum nothere post: late")))},
		{name: mods + "kernel/sum.ko", content: string(module("alias=crypto-sum"))},
		{name: mods + "kernel/cycle.ko", content: string(module("depends=cycle2"))},
		{name: mods + "kernel/cycle2.ko", content: string(module("depends=cycle"))},
		{name: mods + "kernel/lost.ko", content: string(module("depends=nowhere"))},
	}
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "data"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pull gets a kernel that must come.
func pull(t testing.TB, s *Store, what, name string, o Options) *Kernel {
	t.Helper()
	o.Build.Pull.CacheDir = t.TempDir()
	k, fresh, err := s.Pull(t.Context(), what, name, o)
	if err != nil {
		t.Fatal(err)
	}
	if !fresh {
		t.Fatalf("%s was there already", what)
	}
	return k
}

// leftovers are the names in the store's folder that are no kernel.
func leftovers(t testing.TB, s *Store) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(s.dir)
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
