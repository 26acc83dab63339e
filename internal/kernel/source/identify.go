package source

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/compression"
)

// Limits of a kernel's files, in bytes.
const (
	maxKernel  = 512 << 20
	maxVMLinux = 512 << 20
	maxConfig  = 8 << 20
)

// kernelInfo describes a kernel file.
type kernelInfo struct {
	format  string // kernel.FormatBzImage or kernel.FormatELF
	arch    string // a GOARCH
	release string // as uname -r prints it
	pvh     bool   // an ELF file with a PVH entry
}

// identify parses the headers of a kernel file. It returns an error if data is
// not a 64-bit kernel in a supported format.
func identify(data []byte) (kernelInfo, error) {
	if bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return identifyELF(data)
	}
	h, err := parseSetup(data)
	if err != nil {
		return kernelInfo{}, err
	}
	return kernelInfo{format: kernel.FormatBzImage, arch: "amd64", release: h.release}, nil
}

// setup is the header of a bzImage, as far as this package uses it: struct
// setup_header of Documentation/arch/x86/boot.rst.
type setup struct {
	release       string
	payloadOffset int64 // from the start of the file
	payloadLength int64
}

const (
	setupEnd      = 0x260 // end of the last field that parseSetup reads
	setupMagic    = "HdrS"
	minProtocol   = 0x020a // 2.10, of Linux 2.6.31; later versions only add fields
	xloadKernel64 = 1 << 0 // XLF_KERNEL_64, protocol 2.12
	sectorBytes   = 512
	maxVersionLen = 512
)

// parseSetup parses the header of a bzImage. The comments name its fields as
// boot.rst does.
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
	sectors := int64(data[0x1f1]) // setup_sects
	if sectors == 0 {
		sectors = 4 // boot.rst: for backwards compatibility
	}
	code := (sectors + 1) * sectorBytes
	// kernel_version: the offset of a string, less one sector; 0 if there is none.
	if at := int64(le.Uint16(data[0x20e:])); at != 0 {
		if at+sectorBytes >= min(code, int64(len(data))) {
			return s, errors.New("bzImage: version lies outside the header")
		}
		text := data[at+sectorBytes : min(at+sectorBytes+maxVersionLen, int64(len(data)))]
		text, _, _ = bytes.Cut(text, []byte{0})
		s.release, _, _ = strings.Cut(string(text), " ")
	}
	if !kernel.IsRelease(s.release) {
		return s, fmt.Errorf("bzImage: release %.80q", s.release)
	}
	s.payloadOffset = code + int64(le.Uint32(data[0x248:]))
	s.payloadLength = int64(le.Uint32(data[0x24c:]))
	return s, nil
}

// extractVMLinux returns the ELF file inside a bzImage. It returns an error if
// the payload is not an ELF file or its compression is not supported, such as
// xz with the filter for x86 code. The bzImage itself boots all the same.
func extractVMLinux(ctx context.Context, data []byte) ([]byte, error) {
	s, err := parseSetup(data)
	if err != nil {
		return nil, err
	}
	if s.payloadLength < 8 || s.payloadOffset+s.payloadLength > int64(len(data)) {
		return nil, errors.New("bzImage: payload lies outside the file")
	}
	payload := data[s.payloadOffset : s.payloadOffset+s.payloadLength]
	format := compression.Detect(payload)
	switch format {
	case compression.None:
		if !bytes.HasPrefix(payload, []byte(elf.ELFMAG)) {
			return nil, errors.New("bzImage: payload is compressed in an unknown way")
		}
	case compression.Gzip:
	default:
		// The kernel's build appends the decompressed size, except to gzip, whose
		// own format has it: size_append of scripts/Makefile.lib.
		payload = payload[:len(payload)-4]
	}
	out, err := compression.Decompress(ctx, payload, maxVMLinux)
	if err != nil {
		return nil, fmt.Errorf("bzImage: payload of format %s: %w", format, err)
	}
	return out, nil
}

// embeddedConfig returns the configuration that a kernel built with
// CONFIG_IKCONFIG contains (kernel/configs.c), or nil if there is none that can
// be read. The configuration is optional, so that is no error.
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
	text, err := compression.Decompress(ctx, rest[:end], maxConfig)
	if err != nil {
		return nil
	}
	return text
}
