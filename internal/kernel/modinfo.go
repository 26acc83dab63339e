package kernel

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"strings"
)

// maxModule bounds one module, decompressed, in bytes.
const maxModule = 256 << 20

// maxModinfo bounds the section .modinfo in bytes.
const maxModinfo = 4 << 20

// modinfo is what a module says of itself: include/linux/module.h.
type modinfo struct {
	name    string
	depends []string // modules that must be there before
	soft    []string // as modprobe.d(5) has it
	pre     []string // what soft wants before: modules or aliases
	aliases []string
}

// size is about how many bytes of memory the strings of m take.
func (m *modinfo) size() int64 {
	const header = 16
	total := int64(header + len(m.name))
	for _, list := range [][]string{m.depends, m.soft, m.pre, m.aliases} {
		for _, s := range list {
			total += int64(header + len(s))
		}
	}
	return total
}

// parseModinfo reads the section .modinfo of a module.
func parseModinfo(module []byte) (modinfo, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return modinfo{}, err
	}
	if f.Type != elf.ET_REL {
		return modinfo{}, fmt.Errorf("ELF file of type %v is no module", f.Type)
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type == elf.SHT_NOBITS || s.Size > maxModinfo {
		return modinfo{}, errors.New("no .modinfo")
	}
	data, err := s.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf("read .modinfo: %w", err)
	}
	return parseTags(data), nil
}

// parseTags reads NUL-terminated strings of the form tag=value.
func parseTags(data []byte) (m modinfo) {
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		tag, value, _ := strings.Cut(string(entry), "=")
		switch tag {
		case "name":
			m.name = value
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					m.depends = append(m.depends, moduleName(name))
				}
			}
		case "softdep":
			m.soft = append(m.soft, value)
			m.pre = append(m.pre, softBefore(value)...)
		case "alias":
			m.aliases = append(m.aliases, value)
		}
	}
	return m
}

// softBefore returns the part after "pre:" of modprobe.d(5)'s softdep.
func softBefore(value string) (out []string) {
	before := false
	for word := range strings.FieldsSeq(value) {
		switch word {
		case "pre:":
			before = true
		case "post:":
			before = false
		default:
			if before {
				out = append(out, word)
			}
		}
	}
	return out
}

// moduleName is the form of a module's name in which '-' and '_' are equal.
func moduleName(s string) string { return strings.ReplaceAll(s, "-", "_") }

// moduleFile returns the name of the module in a file of that path, "" when
// the file is no module.
func moduleFile(name string) string {
	base := path.Base(name)
	for _, end := range []string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"} {
		if stem, ok := strings.CutSuffix(base, end); ok && stem != "" {
			return moduleName(stem)
		}
	}
	return ""
}
