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

// layoutIndex is the index of the cache's OCI image layout. Other tools find the
// images in it.
type layoutIndex struct {
	dir   cacheDir
	blobs blobStore
}

func (x layoutIndex) path() string { return filepath.Join(x.dir.layout(), indexFile) }

// init writes the files of an empty layout if they are missing. The caller holds
// the cache's lock.
func (x layoutIndex) init() error {
	path := filepath.Join(x.dir.layout(), layoutFile)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := x.dir.writeFile(path, []byte(layoutVersion)); err != nil {
			return fmt.Errorf("make cache: %w", err)
		}
	}
	if _, err := os.Lstat(x.path()); errors.Is(err, fs.ErrNotExist) {
		return x.write(&v1.IndexManifest{})
	}
	return nil
}

// read returns an empty index if the file is missing or damaged. Later pulls add
// the entries again.
func (x layoutIndex) read() (*v1.IndexManifest, error) {
	data, err := readFile(x.path(), maxIndex)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read cache index: %w", err)
	}
	var index v1.IndexManifest
	if json.Unmarshal(data, &index) == nil {
		return &index, nil
	}
	return &v1.IndexManifest{}, nil
}

func (x layoutIndex) write(index *v1.IndexManifest) error {
	index.SchemaVersion = 2
	index.MediaType = types.OCIImageIndex
	if index.Manifests == nil {
		index.Manifests = []v1.Descriptor{} // the specification requires a list, and nil becomes null
	}
	data, err := json.Marshal(index)
	if err == nil {
		err = x.dir.writeFile(x.path(), data)
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
func (x layoutIndex) hasAll(e *indexEntry) bool {
	return x.blobs.has(e.manifest) && !slices.ContainsFunc(e.blobs, func(b blob) bool { return !x.blobs.has(b) })
}

// register adds an image to the index if the cache has every blob of it, because
// other tools must be able to read every image in the index. It replaces an
// entry with the same name and platform, because the tag has moved. It reports
// whether the index has the image now.
func (x layoutIndex) register(ctx context.Context, e *indexEntry) (done bool, err error) {
	if !x.hasAll(e) {
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
	err = x.dir.withLock(ctx, func() error {
		if !x.hasAll(e) { // another process has pruned the cache before the lock
			return nil
		}
		done = true
		index, err := x.read()
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
		return x.write(index)
	})
	return done, err
}

// referencedBlobs returns the digests of the configurations and layers that the
// index's manifests refer to. It includes a manifest only if keep returns true,
// and skips one that cannot be read.
func (x layoutIndex) referencedBlobs(keep func(digest.Digest) bool) (map[digest.Digest]bool, error) {
	index, err := x.read()
	if err != nil {
		return nil, err
	}
	needed := map[digest.Digest]bool{}
	for _, manifest := range index.Manifests {
		d := digest.Digest(manifest.Digest.String())
		if !keep(d) {
			continue
		}
		doc, err := parseDocument(x.blobs.document(d, maxIndex), string(manifest.MediaType))
		if err != nil || doc.isIndex() {
			continue
		}
		for _, ref := range append(doc.Layers, *doc.Config) {
			needed[digest.Digest(ref.Digest)] = true
		}
	}
	return needed, nil
}

// prune removes the entries whose manifest is not in the cache. The caller
// holds the cache's lock.
func (x layoutIndex) prune() error {
	index, err := x.read()
	if err != nil {
		return err
	}
	n := len(index.Manifests)
	index.Manifests = slices.DeleteFunc(index.Manifests, func(d v1.Descriptor) bool {
		return !x.blobs.has(blob{digest.Digest(d.Digest.String()), d.Size})
	})
	if len(index.Manifests) == n {
		return nil
	}
	return x.write(index)
}
