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
	// maxIndex is the maximum size in bytes of the cache's index.
	maxIndex = 64 << 20
)

func (c *Cache) indexPath() string { return filepath.Join(c.layoutDir(), indexFile) }

// initLayout writes the files of an empty layout if they are missing. The caller
// holds the cache's lock.
func (c *Cache) initLayout() error {
	path := filepath.Join(c.layoutDir(), layoutFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := c.writeFile(path, []byte(layoutVersion)); err != nil {
			return fmt.Errorf("make cache: %w", err)
		}
	}
	if _, err := os.Lstat(c.indexPath()); errors.Is(err, fs.ErrNotExist) {
		return c.writeIndex(&v1.IndexManifest{})
	}
	return nil
}

// readIndex returns an empty index if the file is missing or damaged. Later
// pulls add the entries again.
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
		index.Manifests = []v1.Descriptor{} // the specification requires a list, and nil becomes null
	}
	data, err := json.Marshal(index)
	if err == nil {
		err = c.writeFile(c.indexPath(), data)
	}
	if err != nil {
		return fmt.Errorf("write cache index: %w", err)
	}
	return nil
}

// indexEntry is an image to add to the index.
type indexEntry struct {
	name      string // canonical
	mediaType string
	platform  platform
	manifest  blob
	blobs     []blob // configuration and layers
}

// hasAll reports whether the cache has every blob of the image.
func (c *Cache) hasAll(e *indexEntry) bool {
	return c.has(e.manifest) && !slices.ContainsFunc(e.blobs, func(b blob) bool { return !c.has(b) })
}

// register adds an image to the index if the cache has every blob of it, because
// other tools must be able to read every image in the index. It replaces an
// entry with the same name and platform, because the tag has moved. It reports
// whether the index has the image now.
func (c *Cache) register(ctx context.Context, e *indexEntry) (done bool, err error) {
	if !c.hasAll(e) {
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
	err = c.withLock(ctx, func() error {
		if !c.hasAll(e) { // another process has pruned the cache before the lock
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

// referencedBlobs returns the digests of the configurations and layers that the
// index's manifests refer to. It includes a manifest only if keep returns true,
// and skips one that cannot be read.
func (c *Cache) referencedBlobs(keep func(digest.Digest) bool) (map[digest.Digest]bool, error) {
	index, err := c.readIndex()
	if err != nil {
		return nil, err
	}
	needed := map[digest.Digest]bool{}
	for _, indexEntry := range index.Manifests {
		d := digest.Digest(indexEntry.Digest.String())
		if !keep(d) {
			continue
		}
		doc, err := parseDocument(c.document(d, maxIndex), string(indexEntry.MediaType))
		if err != nil || doc.isIndex() {
			continue
		}
		for _, ref := range append(doc.Layers, *doc.Config) {
			needed[digest.Digest(ref.Digest)] = true
		}
	}
	return needed, nil
}

// pruneIndex removes the entries whose manifest is not in the cache. The caller
// holds the cache's lock.
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
