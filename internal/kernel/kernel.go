package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/named"
)

// Schema is the version of the manifest that this package writes, and the only
// one that it reads.
const Schema = 1

// Names of files in a kernel's folder.
const (
	KernelFile  = "kernel"
	VMLinuxFile = "vmlinux"
	ConfigFile  = "config"
	ModulesFile = "modules.ext4"

	manifestFile = "manifest.json"
	indexFile    = "modules.json"
)

// The formats of the file KernelFile.
const (
	FormatBzImage = "bzImage" // Documentation/arch/x86/boot.rst of Linux
	FormatELF     = "ELF"
)

// Manifest is the record of a kernel.
type Manifest struct {
	Schema   int             `json:"schema"`
	ID       digest.Digest   `json:"id"` // see contentID
	Names    []string        `json:"names"`
	Release  string          `json:"release"`           // uname -r, such as 6.1.0-56-cloud-amd64
	Arch     string          `json:"arch"`              // a GOARCH
	Format   string          `json:"format"`            // FormatBzImage or FormatELF
	PVH      bool            `json:"pvh"`               // a file has a PVH entry
	Origin   string          `json:"origin"`            // the source, with the versions of packages
	Added    time.Time       `json:"added"`             // to this store, UTC
	Loadable *Loadable       `json:"modules,omitempty"` // nil if there are no modules
	Files    map[string]File `json:"files"`             // by name in the folder
	Warnings []string        `json:"warnings,omitempty"`
}

// Loadable describes the modules of a kernel independently of the file system
// that holds them.
type Loadable struct {
	Count  int           `json:"count"`
	Digest digest.Digest `json:"digest"` // of the tar that package source makes of them
}

// File is a file in a kernel's folder.
type File struct {
	Size   int64         `json:"size"` // bytes, holes included
	Digest digest.Digest `json:"digest"`
}

// contentID returns the digest that identifies a kernel. It covers the release,
// the architecture, the kernel, its configuration and its modules, but not the
// origin, the time, or the files derived from those.
func (m *Manifest) contentID() (digest.Digest, error) {
	content := struct {
		Release, Arch           string
		Kernel, Config, Modules digest.Digest
	}{m.Release, m.Arch, m.Files[KernelFile].Digest, m.Files[ConfigFile].Digest, ""}
	if m.Loadable != nil {
		content.Modules = m.Loadable.Digest
	}
	data, err := json.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("encode content: %w", err)
	}
	return digest.FromBytes(data), nil
}

// check returns an error if this version cannot work with the manifest. folder
// is the name of the folder that contains it.
func (m *Manifest) check(folder string) error {
	if m.Schema != Schema {
		return fmt.Errorf("schema version %d, this banger knows %d", m.Schema, Schema)
	}
	if m.ID.Hex() != folder {
		return fmt.Errorf("manifest is of kernel %s", m.ID)
	}
	if !IsRelease(m.Release) {
		return fmt.Errorf("release %.80q is not usable", m.Release)
	}
	for name := range m.Files {
		if name == "" || strings.ContainsAny(name, "/\x00") || name[0] == '.' {
			return fmt.Errorf("file name %.80q is not usable", name)
		}
	}
	if id, err := m.contentID(); err != nil || id != m.ID {
		return errors.New("its digests do not give its ID")
	}
	return nil
}

// A Kernel is a kernel in a Store.
type Kernel struct {
	Manifest

	dir string
}

// Label implements named.Record.
func (k *Kernel) Label() named.Label {
	return named.Label{ID: k.ID, Names: &k.Names, Added: k.Added}
}

// Dir returns the host path of the kernel's folder.
func (k *Kernel) Dir() string { return k.dir }

// Path returns the host path of a file of the kernel, or "" if the kernel has
// no file of that name.
func (k *Kernel) Path(name string) string {
	if _, ok := k.Files[name]; !ok {
		return ""
	}
	return filepath.Join(k.dir, name)
}

// BootPath returns the host path of the file that boots fastest: the one with a
// PVH entry if the kernel has one, else the kernel as its source has it.
func (k *Kernel) BootPath() string {
	if p := k.Path(VMLinuxFile); p != "" {
		return p
	}
	return k.Path(KernelFile)
}

// ModulesDisk returns the host path of the ext4 file whose root has
// lib/modules, or "" if the kernel has no modules. The caller must not write to
// the file.
func (k *Kernel) ModulesDisk() string { return k.Path(ModulesFile) }

// ShownName returns the name by which messages call the kernel: its newest
// name, or its short ID if it has none.
func (k *Kernel) ShownName() string {
	if len(k.Names) == 0 {
		return k.ID.Short()
	}
	return k.Names[len(k.Names)-1]
}
