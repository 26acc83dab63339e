package kernel

import (
	"encoding/json"
	"slices"

	"github.com/banger-vm/banger/internal/kernel/compression"
)

// maxIndex is the maximum size in bytes of the file modules.json.
const maxIndex = 64 << 20

// Index is the content of the file modules.json: the names and dependencies of
// a kernel's modules. It saves a boot from reading all modules.
type Index struct {
	Modules []ModuleInfo `json:"modules"` // sorted by path
	Builtin []string     `json:"builtin"` // modules that are built into the kernel, sorted
}

// ModuleInfo is the entry of one module. All names are as ModuleName returns
// them.
type ModuleInfo struct {
	Name    string   `json:"name"`
	Path    string   `json:"path"` // relative to lib/modules/RELEASE
	Depends []string `json:"depends,omitempty"`
	Pre     []string `json:"pre,omitempty"`     // names or aliases to load before, if they exist
	Aliases []string `json:"aliases,omitempty"` // those without wildcards
}

// find returns the module with the given name, or else the first with that
// alias, or nil.
func (x *Index) find(name string) *ModuleInfo {
	for i := range x.Modules {
		if x.Modules[i].Name == name {
			return &x.Modules[i]
		}
	}
	for i := range x.Modules {
		if slices.Contains(x.Modules[i].Aliases, name) {
			return &x.Modules[i]
		}
	}
	return nil
}

// encode returns the index as JSON with a newline. It returns an error if that
// has more than limit bytes, because it could not be read again.
func (x *Index) encode(limit int64) ([]byte, error) {
	data, err := json.Marshal(x)
	if err == nil && int64(len(data)) >= limit {
		err = &compression.SizeError{Limit: limit}
	}
	return append(data, '\n'), err
}
