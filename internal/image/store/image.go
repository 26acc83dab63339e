package store

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/base/named"
)

// Schema is the version of the record format that this package writes. It reads no
// other version.
const Schema = 1

// ErrNotFound means that no image has the given name or ID.
var ErrNotFound = errors.New("no such image")

// An AmbiguousError reports a prefix of the IDs of several images.
type AmbiguousError struct {
	Ref    string
	Images []*Image
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("image %s: prefix of %d images (%s)", e.Ref, len(e.Images), named.ShortIDs(e.Images))
}

// Image is the record of an image.
type Image struct {
	Schema   int           `json:"schema"`
	ID       digest.Digest `json:"id"`               // of the manifest; of the tar for a plain root file system
	Names    []string      `json:"names"`            // canonical, such as docker.io/library/debian:12
	Source   string        `json:"source"`           // as given by the user
	Platform string        `json:"platform"`         // os/arch[/variant]
	Created  time.Time     `json:"created,omitzero"` // time in the image's configuration, UTC
	Pulled   time.Time     `json:"pulled"`           // time of the pull into this store, UTC
	Config   Config        `json:"config"`
	Layers   []Layer       `json:"layers"` // the oldest first
	Disk     Disk          `json:"disk"`
	Warnings []string      `json:"warnings,omitempty"` // differences between the image and the disk
}

// Label implements named.Record.
func (img *Image) Label() named.Label {
	return named.Label{ID: img.ID, Names: &img.Names, Added: img.Pulled}
}

// Config has the image's settings for running a machine. The JSON names are those of
// the "config" object in the OCI image specification.
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

// Layer describes one layer of an image.
type Layer struct {
	Digest digest.Digest `json:"digest,omitempty"` // as stored in the registry
	DiffID digest.DiffID `json:"diffID"`
	Size   int64         `json:"size"` // bytes as stored; -1 if not known
}

// Disk is the ext4 file of an image.
type Disk struct {
	File    string `json:"file"`   // name in the store's disks folder
	Size    int64  `json:"size"`   // bytes, holes included
	Inodes  int    `json:"inodes"` // used by the image's files
	Builder string `json:"builder"`
	Paths   string `json:"paths"` // rooted, strict or scoped
	Label   string `json:"label,omitempty"`
	UUID    string `json:"uuid"`
}

// check returns an error if this version cannot use the record. file is the name of
// the record's file.
func (img *Image) check(file string) error {
	if img.Schema != Schema {
		return fmt.Errorf("schema version %d, this banger knows %d", img.Schema, Schema)
	}
	if _, err := digest.ParseDigest(string(img.ID)); err != nil {
		return err
	}
	if img.ID.Hex()+".json" != file {
		return fmt.Errorf("record has the ID %s, which differs from its file name", img.ID)
	}
	if f := img.Disk.File; f == "" || f[0] == '.' || strings.ContainsAny(f, "/\x00") {
		return fmt.Errorf("disk file name %q is not usable", f)
	}
	return nil
}
