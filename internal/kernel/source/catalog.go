package source

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
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/kernel/compression"
	"github.com/pelletier/go-toml/v2"
)

// maxCatalog is the maximum size in bytes of a catalog file.
const maxCatalog = 1 << 20

//go:embed catalog.toml
var builtinCatalog []byte

// Entry is a named kernel of the catalog.
type Entry struct {
	Name    string   `json:"name" toml:"-"`
	Summary string   `json:"summary" toml:"summary"`
	Sources []string `json:"sources" toml:"sources"` // in the order in which they are tried

	// SHA256 is the digest, in hexadecimal digits, of the file that the only
	// source names. It is "" for any other source.
	SHA256 string `json:"sha256,omitempty" toml:"sha256"`
}

// Catalog returns the entries of the built-in catalog and of the user's catalog
// file, sorted by name. An entry of the user replaces a built-in one of the same
// name. The file need not exist.
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
	data, err := compression.ReadAll(f, maxCatalog)
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
	sortEntries(entries)
	return entries, nil
}

func sortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
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
	sortEntries(out)
	return out, nil
}

// check returns an error if the entry cannot be used. Paths must be absolute,
// because the catalog is read from any working directory.
func (e *Entry) check() error {
	if !kernel.IsName(e.Name) {
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
