package build

import (
	"fmt"

	"github.com/banger-vm/banger/internal/image/layer"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Options configure a build. The zero value builds for this host with the default
// builder and limits.
type Options struct {
	Pull     pull.Options // this package sets Notice
	Builder  Builder      // "" is DefaultBuilder
	Paths    tree.Paths   // the rule for unusual paths in layers
	Size     int64        // of the disk in bytes; 0: computed from the content
	Headroom int64        // free bytes in addition to the content if Size is 0; 0: the builder's default
	Label    string       // of the file system, at most 16 bytes
	UUID     string       // of the file system; "" derives it from the layers and options
	Force    bool         // replace an existing disk

	MaxUnpacked int64 // bytes of all layers, decompressed; 0: layer.DefaultBytes
	MaxInodes   int   // 0: tree.DefaultMaxInodes
	MaxDepth    int   // 0: tree.DefaultMaxDepth
	MaxDisk     int64 // bytes of the disk; 0: the builder's largest
	MaxXattr    int   // bytes of one extended attribute; 0: layer's default

	Report func(Event) // called from several goroutines; may be nil
}

func (o *Options) report(e Event) {
	if o.Report != nil {
		o.Report(e)
	}
}

// matches reports whether an image of the store has every option that o sets
// explicitly.
func (o *Options) matches(rec *store.Image) bool {
	return (o.Builder == "" || string(o.Builder) == rec.Disk.Builder) &&
		(o.Size == 0 || o.Size == rec.Disk.Size) &&
		o.Headroom == 0 &&
		(o.Label == "" || o.Label == rec.Disk.Label) &&
		(o.UUID == "" || o.UUID == rec.Disk.UUID) &&
		(o.Paths == tree.Rooted || o.Paths.String() == rec.Disk.Paths)
}

func (o *Options) builder() Builder {
	if o.Builder == "" {
		return DefaultBuilder
	}
	return o.Builder
}

func (o *Options) limits() layer.Limits {
	return layer.Limits{Bytes: layer.NewBudget(o.MaxUnpacked), Windows: layer.NewWindows(o.Pull.MaxWindow), XattrBytes: o.MaxXattr}
}

// ParsePaths returns the rule for paths with the given name. "" is the default.
func ParsePaths(name string) (tree.Paths, error) { return tree.ParsePaths(name) }

// ParseBuilder returns the builder with the given name.
func ParseBuilder(name string) (Builder, error) {
	for _, b := range []Builder{Native, E2fsprogs} {
		if string(b) == name {
			return b, nil
		}
	}
	return "", fmt.Errorf("builder %q: want %s or %s", name, Native, E2fsprogs)
}
