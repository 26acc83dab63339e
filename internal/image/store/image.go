package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
)

// Schema is the version of the record format that this package writes. It
// reads no other.
const Schema = 1

// minPrefix is how many digits of an ID name an image at the least.
const minPrefix = 4

// ErrNotFound says that no image has the name or ID asked for.
var ErrNotFound = errors.New("no such image")

// An AmbiguousError says that an ID prefix fits several images.
type AmbiguousError struct {
	Ref    string
	Images []*Image
}

func (e *AmbiguousError) Error() string {
	var ids []string
	for _, img := range e.Images {
		ids = append(ids, img.ID.Short())
	}
	return fmt.Sprintf("image %s: prefix of %d images (%s)", e.Ref, len(e.Images), strings.Join(ids, ", "))
}

// Image is the record of an image.
type Image struct {
	Schema   int           `json:"schema"`
	ID       digest.Digest `json:"id"`               // of the manifest; of the tar for a plain root file system
	Names    []string      `json:"names"`            // canonical, such as docker.io/library/debian:12
	Source   string        `json:"source"`           // as the user wrote it
	Platform string        `json:"platform"`         // os/arch[/variant]
	Created  time.Time     `json:"created,omitzero"` // by its maker, UTC
	Pulled   time.Time     `json:"pulled"`           // into this store, UTC
	Config   Config        `json:"config"`
	Layers   []Layer       `json:"layers"`
	Disk     Disk          `json:"disk"`
	Warnings []string      `json:"warnings,omitempty"` // what the builder could not carry
}

// Config is how an image wants to be run. The JSON names are those of the
// OCI image specification's "config" object.
type Config struct {
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	User         string              `json:"User,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

// Layer is one layer of an image, in the order oldest first.
type Layer struct {
	Digest digest.Digest `json:"digest,omitempty"` // as stored in the registry
	DiffID digest.DiffID `json:"diffID"`
	Size   int64         `json:"size"` // bytes as stored; -1 when not known
}

// Disk is the ext4 file of an image.
type Disk struct {
	File    string `json:"file"`   // name in the store's disks folder
	Size    int64  `json:"size"`   // bytes, holes included
	Inodes  int    `json:"inodes"` // in use by the image's files
	Builder string `json:"builder"`
	Paths   string `json:"paths"` // strict or scoped
	Label   string `json:"label,omitempty"`
	UUID    string `json:"uuid"`
}

// check refuses a record that this version cannot work with. file is the
// name that the record was found under.
func (img *Image) check(file string) error {
	if img.Schema != Schema {
		return fmt.Errorf("schema version %d, this banger knows %d", img.Schema, Schema)
	}
	if _, err := digest.ParseDigest(string(img.ID)); err != nil {
		return err
	}
	if img.ID.Hex()+".json" != file {
		return fmt.Errorf("record is of image %s", img.ID)
	}
	if f := img.Disk.File; f == "" || f[0] == '.' || strings.ContainsAny(f, "/\x00") {
		return fmt.Errorf("disk file name %q is not usable", f)
	}
	return nil
}
