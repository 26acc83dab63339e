package pull

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
)

// Media types of the OCI image specification (media-types.md) and of Docker
// image manifest version 2, schema 2.
const (
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	typeOCILayer       = "application/vnd.oci.image.layer."
	typeDockerList     = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
	typeDockerLayer    = "application/vnd.docker.image.rootfs."
	typeDockerSchema1  = "application/vnd.docker.distribution.manifest.v1+" // json or prettyjws
)

const (
	annotationName       = "org.opencontainers.image.ref.name"
	annotationContainerd = "io.containerd.image.name"
	annotationReference  = "vnd.docker.reference.type" // attestations of BuildKit
	cosignKind           = "dev.cosignproject.cosign/" // value of "kind" in layouts of cosign save
)

// maxList is the maximum number of entries in a list of a document. The limit
// on a document's bytes is not enough, because an empty entry takes much more
// memory than text.
const maxList = 4096

// list is a JSON array of at most maxList entries.
type list[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *list[T]) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("want a list")
	}
	*l = list[T]{} // an empty list differs from a missing one, which is nil
	for d.More() {
		if len(*l) == maxList {
			return fmt.Errorf("list of more than %d entries", maxList)
		}
		var entry T
		if err := d.Decode(&entry); err != nil {
			return err
		}
		*l = append(*l, entry)
	}
	return nil
}

// descriptor refers to a blob (OCI image specification, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	URLs        list[string]      `json:"urls"`
	Platform    *wirePlatform     `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type wirePlatform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
	Variant      string `json:"variant"`
}

// blob is the digest and the size of a checked descriptor.
type blob struct {
	digest digest.Digest
	size   int64 // bytes
}

func (d descriptor) blob() (blob, error) {
	h, err := digest.ParseDigest(d.Digest)
	if err != nil {
		return blob{}, fmt.Errorf("descriptor: %s", printable(err.Error()))
	}
	if d.Size < 0 {
		return blob{}, fmt.Errorf("descriptor of %s: size %d", h, d.Size)
	}
	return blob{h, d.Size}, nil
}

// platform returns the platform of an index's entry, or nil if the entry has none.
// A missing operating system is linux.
func (d descriptor) platform() *platform {
	if d.Platform == nil || d.Platform.Architecture == "" {
		return nil
	}
	p := newPlatform(cmp.Or(d.Platform.OS, "linux"), d.Platform.Architecture, d.Platform.Variant)
	return &p
}

// isAttestation reports whether d is the attestation or the signature of another
// manifest in the same index. An attestation is not an image.
func (d descriptor) isAttestation() bool {
	if d.Annotations[annotationReference] != "" {
		return true
	}
	if kind, ok := strings.CutPrefix(d.Annotations["kind"], cosignKind); ok && !strings.HasPrefix(kind, "image") {
		return true
	}
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// document has the fields of both a manifest and an index. isIndex reports
// which of the two it is.
type document struct {
	SchemaVersion int              `json:"schemaVersion"`
	MediaType     string           `json:"mediaType"`
	ArtifactType  string           `json:"artifactType"`
	Manifests     list[descriptor] `json:"manifests"`
	Config        *descriptor      `json:"config"`
	Layers        list[descriptor] `json:"layers"`
	FSLayers      json.RawMessage  `json:"fsLayers"`
}

// parseDocument parses a manifest or an index. mediaType is the type in its
// descriptor or in the Content-Type header of its response; it applies if the
// document has no mediaType field. parseDocument returns an error if the
// document can be read as both kinds (CVE-2021-41190).
func parseDocument(data []byte, mediaType string) (*document, error) {
	var d document
	if err := json.Unmarshal(data, &d); err != nil {
		if strings.HasPrefix(strings.TrimSpace(mediaType), "text/html") {
			return nil, errors.New("parse manifest: it is a web page")
		}
		return nil, fmt.Errorf("parse manifest: %s", printable(err.Error()))
	}
	if d.MediaType == "" {
		d.MediaType, _, _ = strings.Cut(mediaType, ";")
	}
	if strings.HasPrefix(d.MediaType, typeDockerSchema1) || d.SchemaVersion == 1 || d.FSLayers != nil {
		return nil, errors.New("manifest is of Docker schema 1, which is not supported: push the image again with a current tool")
	}
	if d.SchemaVersion != 2 {
		return nil, fmt.Errorf("manifest has schema version %d, want 2", d.SchemaVersion)
	}
	if d.Manifests != nil && (d.Layers != nil || d.Config != nil) {
		return nil, errors.New("document is both a manifest and an index")
	}
	index := d.MediaType == typeOCIIndex || d.MediaType == typeDockerList
	manifest := d.MediaType == typeOCIManifest || d.MediaType == typeDockerManifest
	if index && d.Config != nil || manifest && d.Manifests != nil {
		return nil, fmt.Errorf("document does not match its media type %s", d.MediaType)
	}
	if d.Manifests == nil && d.Config == nil && !index {
		return nil, fmt.Errorf("document of type %q is neither a manifest nor an index", printable(d.MediaType))
	}
	return &d, nil
}

func (d *document) isIndex() bool { return d.Config == nil }

// checkImage returns an error if the manifest is not an image's, has more than
// maxLayers layers, or has a layer of an unsupported type.
func (d *document) checkImage(maxLayers int) error {
	if err := d.checkArtifact(); err != nil {
		return err
	}
	if len(d.Layers) > maxLayers {
		return tooManyLayers(len(d.Layers), maxLayers)
	}
	for _, l := range d.Layers {
		b, err := l.blob()
		if err != nil {
			return err
		}
		if err := l.checkLayer(); err != nil {
			return d.unless(&LayerError{Digest: b.digest, Err: err})
		}
	}
	return nil
}

// isForeign reports whether d is a layer whose content may be missing from its
// registry.
func (d descriptor) isForeign() bool {
	return len(d.URLs) > 0 && (strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable."))
}
