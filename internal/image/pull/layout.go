package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/banger-vm/banger/internal/base/digest"
)

// layoutVersion is the content of the file oci-layout (OCI image
// specification, image-layout.md).
const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	// maxIndex bounds the cache's own index in bytes.
	maxIndex = 64 << 20
)

func (c *Cache) indexPath() string { return filepath.Join(c.layoutDir(), indexFile) }

// initLayout writes what an empty layout has. The cache's lock is held.
func (c *Cache) initLayout() error {
	path := filepath.Join(c.layoutDir(), layoutFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := c.write(path, []byte(layoutVersion)); err != nil {
			return fmt.Errorf("make cache: %w", err)
		}
	}
	if _, err := os.Lstat(c.indexPath()); errors.Is(err, fs.ErrNotExist) {
		return c.writeIndex(&v1.IndexManifest{})
	}
	return nil
}

// readIndex returns an empty index where there is none or it is damaged: it
// says nothing that cannot be found out again.
func (c *Cache) readIndex() (*v1.IndexManifest, error) {
	data, err := readFile(c.indexPath(), maxIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read cache index: %w", err)
	}
	var index v1.IndexManifest
	if json.Unmarshal(data, &index) == nil {
		return &index, nil
	}
	return &v1.IndexManifest{}, nil
}

func (c *Cache) writeIndex(index *v1.IndexManifest) error {
	index.SchemaVersion = 2
	index.MediaType = types.OCIImageIndex
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{} // the specification wants the list, null is none
	}
	data, err := json.Marshal(index)
	if err == nil {
		err = c.write(c.indexPath(), data)
	}
	if err != nil {
		return fmt.Errorf("write cache index: %w", err)
	}
	return nil
}

// entry is an image for the index: its manifest and all that it refers to.
type entry struct {
	name      string // canonical
	mediaType string
	platform  platform
	manifest  blob
	blobs     []blob // configuration and layers
}

// complete reports whether the cache has all of the image.
func (c *Cache) complete(e *entry) bool {
	return c.has(e.manifest) && !slices.ContainsFunc(e.blobs, func(b blob) bool { return !c.has(b) })
}

// register names an image in the index once the cache has all of it, so that
// every image of the layout can be read by other tools. An entry of the same
// name and platform is replaced: the tag has moved.
func (c *Cache) register(ctx context.Context, e *entry) (done bool, err error) {
	if !c.complete(e) {
		return false, nil
	}
	hash, err := v1.NewHash(string(e.manifest.digest))
	if err != nil {
		return false, err
	}
	desc := v1.Descriptor{
		MediaType: types.MediaType(e.mediaType), Digest: hash, Size: e.manifest.size,
		Platform:    &v1.Platform{OS: e.platform.os, Architecture: e.platform.arch, Variant: e.platform.variant},
		Annotations: map[string]string{annotationName: e.name},
	}
	err = c.locked(ctx, func() error {
		if !c.complete(e) { // pruned before the lock was ours
			return nil
		}
		done = true
		index, err := c.readIndex()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(index.Manifests, func(d v1.Descriptor) bool {
			return d.Annotations[annotationName] == e.name && d.Platform != nil && d.Platform.Equals(*desc.Platform)
		})
		switch {
		case i < 0:
			index.Manifests = append(index.Manifests, desc)
		case index.Manifests[i].Digest == hash:
			return nil
		default:
			index.Manifests[i] = desc
		}
		return c.writeIndex(index)
	})
	return done, err
}

// referenced returns the digests that the wanted manifests of the index refer
// to. A manifest that cannot be read refers to nothing.
func (c *Cache) referenced(keep func(digest.Digest) bool) (map[digest.Digest]bool, error) {
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	needed := map[digest.Digest]bool{}
	for _, entry := range index.Manifests {
		d := digest.Digest(entry.Digest.String())
		if !keep(d) {
			continue
		}
		doc, err := parseDocument(c.document(d, maxIndex), string(entry.MediaType))
		if err != nil || doc.isIndex() {
			continue
		}
		for _, ref := range append(doc.Layers, *doc.Config) {
			needed[digest.Digest(ref.Digest)] = true
		}
	}
	return needed, nil
}

// pruneIndex drops the entries of images that are not whole any more. The
// cache's lock is held.
func (c *Cache) pruneIndex() error {
	index, err := c.readIndex()
	if err != nil {
		return err
	}
	n := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		return !c.has(blob{digest.Digest(d.Digest.String()), d.Size})
	})
	if len(index.Manifests) == n {
		return nil
	}
	return c.writeIndex(index)
}
