package kernel

import (
	"bytes"
	_ "embed" // for the catalog
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/pelletier/go-toml/v2"
)

const (
	maxCatalog = 1 << 20 // bytes
	maxName    = 128     // bytes of a kernel's name
)

//go:embed catalog.toml
var builtinCatalog []byte

// Entry is a kernel that the catalog knows by name.
type Entry struct {
	Name    string   `json:"name" toml:"-"`
	Summary string   `json:"summary" toml:"summary"`
	Sources []string `json:"sources" toml:"sources"` // tried in order
	// SHA256 is the digest, in hexadecimal digits, of the file that the only
	// source names. A source that is no file has no such digest.
	SHA256 string `json:"sha256,omitempty" toml:"sha256"`
}

// Catalog returns the entries of the built-in catalog and of the user's own
// file, by name; the user's win. A file that is not there is empty.
func Catalog(userFile string) ([]Entry, error) {
	entries, err := parseCatalog(builtinCatalog)
	if err != nil {
		return nil, fmt.Errorf("read built-in catalog: %w", err)
	}
	if userFile == "" {
		return entries, nil
	}
	f, err := os.Open(userFile)
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read catalog: %w", err)
	}
	defer f.Close()
	data, err := readBounded(f, maxCatalog)
	if err != nil {
		return nil, fmt.Errorf("read catalog %s: %w", userFile, err)
	}
	own, err := parseCatalog(data)
	if err != nil {
		return nil, fmt.Errorf("read catalog %s: %w", userFile, err)
	}
	for _, e := range own {
		entries = slices.DeleteFunc(entries, func(o Entry) bool { return o.Name == e.Name })
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries, nil
}

func parseCatalog(data []byte) ([]Entry, error) {
	var file struct {
		Kernel map[string]Entry `toml:"kernel"`
	}
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&file); err != nil {
		if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
			row, _ := strict.Errors[0].Position()
			return nil, fmt.Errorf("line %d: unknown key %v", row, strict.Errors[0].Key())
		}
		return nil, err
	}
	var out []Entry
	for name, e := range file.Kernel {
		e.Name = name
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("kernel.%s: %w", name, err)
		}
		out = append(out, e)
	}
	slices.SortFunc(out, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func (e *Entry) check() error {
	if !IsName(e.Name) {
		return errors.New("name is not usable")
	}
	if len(e.Sources) == 0 {
		return errors.New("no sources")
	}
	for _, text := range e.Sources {
		s, err := parseSource(text)
		if err != nil {
			return err
		}
		for _, file := range s.files() {
			if !filepath.IsAbs(file) {
				return fmt.Errorf("source %s: want an absolute path", text)
			}
		}
		if e.SHA256 != "" && (len(e.Sources) != 1 || len(s.files()) != 1 || s.kind == kindLayout) {
			return errors.New("sha256 is for one source that is one file")
		}
	}
	if e.SHA256 != "" {
		if _, err := digest.ParseDigest("sha256:" + e.SHA256); err != nil {
			return err
		}
	}
	return nil
}

// IsName reports whether s may be the name of a kernel.
func IsName(s string) bool {
	return s != "" && len(s) <= maxName && strings.Trim(strings.ToLower(s), lowerAlnum+"+-._~") == "" &&
		strings.Contains(lowerAlnum, strings.ToLower(s[:1]))
}
