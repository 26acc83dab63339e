package source

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/kernel"
)

// identifyELF is identify for an ELF file.
func identifyELF(data []byte) (kernelInfo, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return kernelInfo{}, fmt.Errorf("kernel: %w", err)
	}
	arch := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	if arch == "" || f.Class != elf.ELFCLASS64 || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return kernelInfo{}, fmt.Errorf("kernel: ELF file of type %v for %v", f.Type, f.Machine)
	}
	info := kernelInfo{format: kernel.FormatELF, arch: arch, release: bannerRelease(data), pvh: arch == "amd64" && hasPVH(f)}
	if info.release == "" {
		return kernelInfo{}, errors.New("kernel: ELF file does not say \"Linux version\": not a kernel")
	}
	return info, nil
}

// bannerRelease returns the release in linux_banner of init/version.c, which is
// "Linux version RELEASE (…", or "" if there is none.
func bannerRelease(data []byte) string {
	const banner = "Linux version "
	for {
		at := bytes.Index(data, []byte(banner))
		if at < 0 {
			return ""
		}
		data = data[at+len(banner):]
		release, _, ok := strings.Cut(string(data[:min(len(data), 80)]), " (")
		if ok && kernel.IsRelease(release) {
			return release
		}
	}
}

// hasPVH reports whether the file has the note that points a boot loader to the
// 32-bit entry of Xen's PVH boot: XEN_ELFNOTE_PHYS32_ENTRY of
// include/xen/interface/elfnote.h.
func hasPVH(f *elf.File) bool {
	const (
		phys32Entry = 18
		maxNotes    = 1 << 20
	)
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > maxNotes {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err != nil {
			continue // a boot loader cannot read a segment outside the file either
		}
		align := uint64(4)
		if p.Align == 8 {
			align = 8
		}
		if hasNote(notes, f.ByteOrder, align, "Xen\x00", phys32Entry) {
			return true
		}
	}
	return false
}

// hasNote reports whether notes has an entry of that name and type with a
// descriptor of 4 bytes or more. The format is that of the System V gABI, "Note
// Section".
func hasNote(notes []byte, order binary.ByteOrder, align uint64, name string, kind uint32) bool {
	up := func(n uint64) uint64 { return (n + align - 1) / align * align }
	for len(notes) >= 12 {
		nameLen, descLen := uint64(order.Uint32(notes)), uint64(order.Uint32(notes[4:]))
		got := order.Uint32(notes[8:])
		desc := up(12 + nameLen)
		end := desc + up(descLen)
		if desc > uint64(len(notes)) || desc+descLen > uint64(len(notes)) {
			return false
		}
		if got == kind && string(notes[12:12+nameLen]) == name && descLen >= 4 {
			return true
		}
		notes = notes[min(end, uint64(len(notes))):]
	}
	return false
}
