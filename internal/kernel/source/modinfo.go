package source

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/banger-vm/banger/internal/kernel"
)

// maxModinfoSection is the maximum size in bytes of one .modinfo section.
const maxModinfoSection = 4 << 20

// modinfo is the content of a module's .modinfo section, as
// include/linux/module.h of Linux defines it.
type modinfo struct {
	name    string
	depends []string // modules that must be loaded before
	soft    []string // soft dependencies, in the syntax of modprobe.d(5)
	pre     []string // modules or aliases that soft names after "pre:"
	aliases []string
}

// size returns roughly the number of bytes that the strings of m take in
// memory.
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

// indexEntry returns the entry of the kernel's index for the module in the file
// at path.
func (m *modinfo) indexEntry(path string) kernel.ModuleInfo {
	out := kernel.ModuleInfo{Name: m.name, Path: path, Depends: m.depends}
	for _, p := range m.pre {
		out.Pre = append(out.Pre, kernel.ModuleName(p))
	}
	for _, a := range m.aliases {
		if !strings.ContainsAny(a, "*?[") {
			out.Aliases = append(out.Aliases, kernel.ModuleName(a))
		}
	}
	return out
}

// parseModinfo reads the .modinfo section of a module, which is a relocatable
// ELF file.
func parseModinfo(module []byte) (modinfo, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return modinfo{}, err
	}
	if f.Type != elf.ET_REL {
		return modinfo{}, fmt.Errorf("ELF file of type %v is no module", f.Type)
	}
	s := f.Section(".modinfo")
	if s == nil || s.Type == elf.SHT_NOBITS || s.Size > maxModinfoSection {
		return modinfo{}, errors.New("no .modinfo")
	}
	data, err := s.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf("read .modinfo: %w", err)
	}
	return parseTags(data), nil
}

// parseTags parses NUL-terminated strings of the form tag=value.
func parseTags(data []byte) (m modinfo) {
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		tag, value, _ := strings.Cut(string(entry), "=")
		switch tag {
		case "name":
			m.name = value
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					m.depends = append(m.depends, kernel.ModuleName(name))
				}
			}
		case "softdep":
			m.soft = append(m.soft, value)
			m.pre = append(m.pre, parsePre(value)...)
		case "alias":
			m.aliases = append(m.aliases, value)
		}
	}
	return m
}

// parsePre returns the words after "pre:" of a soft dependency.
func parsePre(value string) (out []string) {
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

// moduleNameOf returns the name of the module in a file with the given path, or
// "" if such a file is not a module.
func moduleNameOf(name string) string {
	base := path.Base(name)
	for _, end := range []string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"} {
		if stem, ok := strings.CutSuffix(base, end); ok && stem != "" {
			return kernel.ModuleName(stem)
		}
	}
	return ""
}
