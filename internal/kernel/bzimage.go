package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Bounds of what is read, in bytes.
const (
	maxKernel  = 512 << 20
	maxVMLinux = 512 << 20
	maxConfig  = 8 << 20
)

// The formats of a kernel file.
const (
	FormatBzImage = "bzImage" // Documentation/arch/x86/boot.rst of Linux
	FormatELF     = "ELF"
)

// image is a kernel file, looked into.
type image struct {
	format  string
	arch    string // as Go calls it
	release string // as uname -r will give it
	pvh     bool   // an ELF file with a PVH entry
}

// identify says what kind of kernel data is.
func identify(data []byte) (image, error) {
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return identifyELF(data)
	}
	h, err := parseSetup(data)
	if err != nil {
		return image{}, err
	}
	return image{format: FormatBzImage, arch: "amd64", release: h.release}, nil
}

// setup is the part of a bzImage's header that matters here: struct
// setup_header of Documentation/arch/x86/boot.rst.
type setup struct {
	release       string
	payloadOffset int64 // from the start of the file
	payloadLength int64
}

const (
	setupEnd      = 0x260 // of the last field read here
	setupMagic    = "HdrS"
	minProtocol   = 0x020a // 2.10 of Linux 2.6.31: later ones only add
	xloadKernel64 = 1 << 0 // XLF_KERNEL_64, protocol 2.12
	sectorBytes   = 512
	maxVersionLen = 512
)

// parseSetup reads the header of a bzImage.
func parseSetup(data []byte) (setup, error) {
	var s setup
	if len(data) < setupEnd || string(data[0x202:0x206]) != setupMagic {
		return s, errors.New("neither a bzImage nor an ELF file")
	}
	le := binary.LittleEndian
	if protocol := le.Uint16(data[0x206:]); protocol < minProtocol {
		return s, fmt.Errorf("bzImage: boot protocol %d.%d is too old", protocol>>8, protocol&0xff)
	} else if protocol >= 0x020c && le.Uint16(data[0x236:])&xloadKernel64 == 0 {
		return s, errors.New("bzImage: kernel is for 32 bits")
	}
	sectors := int64(data[0x1f1])
	if sectors == 0 {
		sectors = 4 // for backwards compatibility, says boot.rst
	}
	code := (sectors + 1) * sectorBytes
	// kernel_version points behind the first sector; 0 where there is none.
	if at := int64(le.Uint16(data[0x20e:])); at != 0 {
		if at+sectorBytes >= min(code, int64(len(data))) {
			return s, errors.New("bzImage: version lies outside the header")
		}
		text := data[at+sectorBytes : min(at+sectorBytes+maxVersionLen, int64(len(data)))]
		text, _, _ = bytes.Cut(text, []byte{0})
		s.release, _, _ = strings.Cut(string(text), " ")
	}
	if !IsRelease(s.release) {
		return s, fmt.Errorf("bzImage: release %.80q", s.release)
	}
	s.payloadOffset = code + int64(le.Uint32(data[0x248:]))
	s.payloadLength = int64(le.Uint32(data[0x24c:]))
	return s, nil
}

// IsRelease reports whether s may be a kernel release, such as
// 6.1.0-56-cloud-amd64: what is safe as a part of a file name.
func IsRelease(s string) bool {
	return s != "" && len(s) <= 64 && s[0] >= '0' && s[0] <= '9' &&
		strings.Trim(strings.ToLower(s), lowerAlnum+"+-._~") == ""
}

// extractVMLinux returns the ELF file inside a bzImage. A payload that ELF
// loaders cannot use, or in a format that is not read here (such as xz with
// its filter for x86 code), is an error; the bzImage boots all the same.
func extractVMLinux(ctx context.Context, data []byte) ([]byte, error) {
	s, err := parseSetup(data)
	if err != nil {
		return nil, err
	}
	if s.payloadLength < 8 || s.payloadOffset+s.payloadLength > int64(len(data)) {
		return nil, errors.New("bzImage: payload lies outside the file")
	}
	payload := data[s.payloadOffset : s.payloadOffset+s.payloadLength]
	format := compression(payload)
	switch format {
	case "":
		if !bytes.HasPrefix(payload, []byte(elf.ELFMAG)) {
			return nil, errors.New("bzImage: payload is compressed in an unknown way")
		}
	case "gzip":
	default:
		// The build appends the size, which only gzip has in its own format:
		// size_append of scripts/Makefile.lib.
		payload = payload[:len(payload)-4]
	}
	out, err := inflate(ctx, payload, maxVMLinux)
	if err != nil {
		return nil, fmt.Errorf("bzImage: payload of format %s: %w", format, err)
	}
	return out, nil
}

func identifyELF(data []byte) (image, error) {
	f, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return image{}, fmt.Errorf("kernel: %w", err)
	}
	arch := map[elf.Machine]string{elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64"}[f.Machine]
	if arch == "" || f.Class != elf.ELFCLASS64 || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN {
		return image{}, fmt.Errorf("kernel: ELF file of type %v for %v", f.Type, f.Machine)
	}
	img := image{format: FormatELF, arch: arch, release: bannerRelease(data), pvh: arch == "amd64" && hasPVH(f)}
	if img.release == "" {
		return image{}, errors.New("kernel: ELF file does not say \"Linux version\": not a kernel")
	}
	return img, nil
}

// bannerRelease finds linux_banner of init/version.c: "Linux version RELEASE (".
func bannerRelease(data []byte) string {
	const banner = "Linux version "
	for {
		at := bytes.Index(data, []byte(banner))
		if at < 0 {
			return ""
		}
		data = data[at+len(banner):]
		release, _, ok := strings.Cut(string(data[:min(len(data), 80)]), " (")
		if ok && IsRelease(release) {
			return release
		}
	}
}

// hasPVH reports whether the file has the note by which a loader finds the
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
			continue // a segment outside the file has no note that a loader finds
		}
		align := uint64(4)
		if p.Align == 8 {
			align = 8
		}
		if findNote(notes, f.ByteOrder, align, "Xen\x00", phys32Entry) {
			return true
		}
	}
	return false
}

// findNote goes through notes, gabi "Note Section".
func findNote(notes []byte, order binary.ByteOrder, align uint64, name string, kind uint32) bool {
	up := func(n uint64) uint64 { return (n + align - 1) / align * align }
	for len(notes) >= 12 {
		nameLen, descLen := uint64(order.Uint32(notes)), uint64(order.Uint32(notes[4:]))
		is := order.Uint32(notes[8:])
		desc := up(12 + nameLen)
		end := desc + up(descLen)
		if desc > uint64(len(notes)) || desc+descLen > uint64(len(notes)) {
			return false
		}
		if is == kind && string(notes[12:12+nameLen]) == name && descLen >= 4 {
			return true
		}
		notes = notes[min(end, uint64(len(notes))):]
	}
	return false
}

// embeddedConfig returns the configuration that a kernel built with
// CONFIG_IKCONFIG carries: kernel/configs.c.
func embeddedConfig(ctx context.Context, vmlinux []byte) []byte {
	at := bytes.Index(vmlinux, []byte("IKCFG_ST\x1f\x8b"))
	if at < 0 {
		return nil
	}
	rest := vmlinux[at+len("IKCFG_ST"):]
	end := bytes.Index(rest, []byte("IKCFG_ED"))
	if end < 0 {
		return nil
	}
	text, err := inflate(ctx, rest[:end], maxConfig)
	if err != nil {
		return nil // the kernel is as good without it
	}
	return text
}
