package build

import (
	"fmt"
	"slices"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/layer"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Options are what a build can be told. The zero value builds for this host
// with the default builder and limits.
type Options struct {
	Pull     pull.Options // Notice is set by this package
	Builder  Builder      // "" is DefaultBuilder
	Scoped   bool         // resolve careless paths inside the image instead of refusing them
	Size     int64        // of the disk in bytes; 0: from the content
	Headroom int64        // bytes free over the content where Size is 0; 0: the builder's default
	Label    string       // of the file system, at most 16 bytes
	UUID     string       // of the file system; "" derives it from the layers and options
	Force    bool         // replace what is there

	MaxUnpacked int64 // bytes of all layers, decompressed; 0: layer.DefaultBytes
	MaxInodes   int   // 0: tree.DefaultMaxInodes
	MaxDepth    int   // 0: tree.DefaultMaxDepth
	MaxXattr    int   // bytes of one extended attribute; 0: layer's default

	Report func(Event) // called from several goroutines; may be nil
}

func (o *Options) report(e Event) {
	if o.Report != nil {
		o.Report(e)
	}
}

// fits reports whether an image of the store is what a build with o gives,
// in all that o asks for explicitly.
func (o *Options) fits(rec *store.Image) bool {
	return (o.Builder == "" || string(o.Builder) == rec.Disk.Builder) &&
		(o.Size == 0 || o.Size == rec.Disk.Size) &&
		o.Headroom == 0 &&
		(o.Label == "" || o.Label == rec.Disk.Label) &&
		(o.UUID == "" || o.UUID == rec.Disk.UUID)
}

// Result is a disk that was built.
type Result struct {
	ID       digest.Digest `json:"id"`     // as store.Image has it
	Size     int64         `json:"size"`   // bytes, holes included
	Inodes   int           `json:"inodes"` // of the image's files
	UUID     string        `json:"uuid"`
	Platform string        `json:"platform"`
	Layers   []store.Layer `json:"layers"`
	Warnings []string      `json:"warnings,omitempty"` // what could not be carried over exactly

	disk string // host path in the scratch folder, written through
	key  string // short hash of what determines the disk's bytes
}

func record(img *pull.Image, name string, res *Result, o Options) *store.Image {
	rec := &store.Image{
		ID: res.ID, Source: img.Source, Platform: img.Platform, Names: addName(nil, name),
		Created: img.Config.Created.UTC(), Pulled: time.Now().UTC().Truncate(time.Second),
		Config: runConfig(img.Config.Config), Layers: res.Layers, Warnings: res.Warnings,
		Disk: store.Disk{
			Size: res.Size, Inodes: res.Inodes, Builder: string(o.builder()),
			Paths: o.pathsMode(), Label: o.Label, UUID: res.UUID,
		},
	}
	// A disk of other options is another file: machines may run on the old one.
	rec.Disk.File = fmt.Sprintf("%s-%s.ext4", rec.ID.Hex(), res.key)
	return rec
}

func runConfig(c v1.Config) store.Config {
	return store.Config{
		Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkingDir: c.WorkingDir,
		Labels: c.Labels, ExposedPorts: c.ExposedPorts, Volumes: c.Volumes, StopSignal: c.StopSignal,
	}
}

func addName(names []string, name string) []string {
	if name == "" || slices.Contains(names, name) {
		return names
	}
	return append(slices.Clone(names), name)
}

func (o *Options) pathsMode() string {
	if o.Scoped {
		return "scoped"
	}
	return "strict"
}

func (o *Options) builder() Builder {
	if o.Builder == "" {
		return DefaultBuilder
	}
	return o.Builder
}

func (o *Options) limits() layer.Limits {
	return layer.Limits{Bytes: layer.NewBudget(o.MaxUnpacked), XattrBytes: o.MaxXattr}
}

// ParseBuilder returns the builder that name stands for.
func ParseBuilder(name string) (Builder, error) {
	for _, b := range []Builder{Native, E2fsprogs} {
		if string(b) == name {
			return b, nil
		}
	}
	return "", fmt.Errorf("builder %q: want %s or %s", name, Native, E2fsprogs)
}
