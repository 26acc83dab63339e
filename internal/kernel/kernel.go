package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
)

// Schema is the version of the manifest that this package writes. It reads no
// other.
const Schema = 1

// DefaultName is the catalog's entry that machines use when no kernel is asked
// for.
const DefaultName = "default"

// Names in a kernel's folder.
const (
	manifestFile = "manifest.json"
	kernelFile   = "kernel"
	vmlinuxFile  = "vmlinux"
	configFile   = "config"
	modulesFile  = "modules.ext4"
	indexFile    = "modules.json"
)

// Manifest is the record of a kernel.
type Manifest struct {
	Schema   int             `json:"schema"`
	ID       digest.Digest   `json:"id"` // see contentID
	Names    []string        `json:"names"`
	Release  string          `json:"release"`           // uname -r, such as 6.1.0-56-cloud-amd64
	Arch     string          `json:"arch"`              // as Go calls it
	Format   string          `json:"format"`            // of the file kernel: bzImage or ELF
	PVH      bool            `json:"pvh"`               // there is a file with a PVH entry
	Origin   string          `json:"origin"`            // where it came from, packages with their versions
	Added    time.Time       `json:"added"`             // to this store, UTC
	Loadable *Loadable       `json:"modules,omitempty"` // nil: there are no modules
	Files    map[string]File `json:"files"`             // by the name in the folder
	Warnings []string        `json:"warnings,omitempty"`
}

// Loadable says what the modules of a kernel are, whatever holds them.
type Loadable struct {
	Count  int           `json:"count"`
	Digest digest.Digest `json:"digest"` // see moduleSet.writeTar
}

// File is a file in a kernel's folder.
type File struct {
	Size   int64         `json:"size"` // bytes, holes included
	Digest digest.Digest `json:"digest"`
}

// contentID is the digest that identifies a kernel: of what the content is,
// and not of when or how it got here, nor of what was made from it.
func (m *Manifest) contentID() (digest.Digest, error) {
	content := struct {
		Release, Arch           string
		Kernel, Config, Modules digest.Digest
	}{m.Release, m.Arch, m.Files[kernelFile].Digest, m.Files[configFile].Digest, ""}
	if m.Loadable != nil {
		content.Modules = m.Loadable.Digest
	}
	data, err := json.Marshal(content)
	if err != nil {
		return "", fmt.Errorf("encode content: %w", err)
	}
	return sumOf(data), nil
}

func sumOf(data []byte) digest.Digest {
	sum := sha256.Sum256(data)
	return digest.Digest("sha256:" + hex.EncodeToString(sum[:]))
}

// check refuses a manifest that this version cannot work with. folder is the
// name of the folder that it was found in.
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

// A Kernel is a kernel of a Store.
type Kernel struct {
	Manifest

	dir string
}

// Dir returns the host path of the kernel's folder.
func (k *Kernel) Dir() string { return k.dir }

// Path returns the host path of a file of the kernel, "" when it has no such
// file.
func (k *Kernel) Path(name string) string {
	if _, ok := k.Files[name]; !ok {
		return ""
	}
	return filepath.Join(k.dir, name)
}

// BootPath returns the host path of the file that boots soonest: the one with
// a PVH entry where there is one, else Image.
func (k *Kernel) BootPath() string {
	if p := k.Path(vmlinuxFile); p != "" {
		return p
	}
	return k.Path(kernelFile)
}

// Image returns the host path of the kernel as it was found, which every
// loader takes: a bzImage, or an ELF file where there is nothing else.
func (k *Kernel) Image() string { return k.Path(kernelFile) }

// ModulesDisk returns the host path of the ext4 file whose root has
// lib/modules, "" when the kernel has no modules. It is not to be written.
func (k *Kernel) ModulesDisk() string { return k.Path(modulesFile) }

// ShownName is how messages call the kernel.
func (k *Kernel) ShownName() string {
	if len(k.Names) == 0 {
		return k.ID.Short()
	}
	return k.Names[len(k.Names)-1]
}
