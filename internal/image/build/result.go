package build

import (
	"fmt"
	"slices"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
)

// Result describes a new disk.
type Result struct {
	ID       digest.Digest `json:"id"`     // the same as in store.Image
	Size     int64         `json:"size"`   // bytes, holes included
	Inodes   int           `json:"inodes"` // of the image's files
	UUID     string        `json:"uuid"`
	Platform string        `json:"platform"`
	Layers   []store.Layer `json:"layers"`
	Warnings []string      `json:"warnings,omitempty"` // differences between the image and the disk

	disk string // host path in the scratch folder, synced to the device
	key  string // short hash of the disk's identity
}

func newRecord(img *pull.Image, name string, res *Result, o Options) *store.Image {
	rec := &store.Image{
		ID: res.ID, Source: img.Source, Platform: img.Platform, Names: addName(nil, name),
		Created: img.Config.Created.UTC(), Pulled: time.Now().UTC().Truncate(time.Second),
		Config: runConfig(img.Config.Config), Layers: res.Layers, Warnings: res.Warnings,
		Disk: store.Disk{
			Size: res.Size, Inodes: res.Inodes, Builder: string(o.builder()),
			Paths: o.Paths.String(), Label: o.Label, UUID: res.UUID,
		},
	}
	// A build with other options writes another file, because machines may use the
	// old one.
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
