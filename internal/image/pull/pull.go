package pull

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/banger-vm/banger/internal/base/digest"
)

// pull fetches one image from a registry into the cache.
type pull struct {
	registry *registry
	cache    *Cache
	maxJSON  int64

	mu    sync.Mutex
	entry *indexEntry // to add to the cache's index; nil after it was added
}

func resolveRegistry(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	cache := OpenCache(o.CacheDir)
	if err := cache.prepare(ctx); err != nil {
		return nil, err
	}
	r, err := newRegistry(s.ref.Context(), o)
	if err != nil {
		return nil, err
	}
	p := &pull{registry: r, cache: cache, maxJSON: o.maxJSON()}
	img, err := p.resolve(ctx, s.ref, want, o)
	if err != nil {
		r.close()
		return nil, err
	}
	return img, nil
}

func (p *pull) resolve(ctx context.Context, ref name.Reference, want platform, o Options) (*Image, error) {
	data, mediaType, err := p.rootDocument(ctx, ref)
	if err != nil {
		return nil, err
	}
	b := blob{digest.FromBytes(data), int64(len(data))}
	found, err := newResolver(p, want, o).fromDocument(ctx, data, b, mediaType)
	if err != nil {
		return nil, err
	}
	img := found.newImage()
	img.Name = canonical(ref)
	img.close = func() error { p.registry.close(); return nil }
	if b == found.manifest {
		if err := p.cache.blobs.addDocument(ctx, b.digest, data); err != nil {
			return nil, err
		}
	}
	p.entry = &indexEntry{name: img.Name, mediaType: found.mediaType, platform: found.platform, manifest: found.manifest}
	p.entry.blobs = append(p.entry.blobs, found.configRef)
	for i, l := range found.doc.Layers {
		layer, err := p.layer(l, found.diffIDs[i])
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, layer)
		p.entry.blobs = append(p.entry.blobs, blob{layer.digest, layer.size})
	}
	p.register(ctx)
	return img, nil
}

// rootDocument returns the document that ref names. It reads the cache only if
// ref is a digest, because a tag may have moved.
func (p *pull) rootDocument(ctx context.Context, ref name.Reference) (data []byte, mediaType string, err error) {
	want := identifierDigest(ref)
	if want != "" {
		if data := p.cache.blobs.document(want, p.maxJSON); data != nil {
			return data, "", nil
		}
	}
	data, mediaType, err = p.registry.manifest(ctx, ref.Identifier())
	if err != nil {
		return nil, "", err
	}
	if got := digest.FromBytes(data); want != "" && got != want {
		return nil, "", fmt.Errorf("manifest %s: %w", want, &mismatchError{got})
	}
	return data, mediaType, nil
}

// manifest implements documentFetcher.
func (p *pull) manifest(ctx context.Context, b blob) ([]byte, error) {
	return p.document(ctx, b, func() ([]byte, error) {
		data, _, err := p.registry.manifest(ctx, string(b.digest))
		return data, err
	})
}

// config implements documentFetcher.
func (p *pull) config(ctx context.Context, b blob) ([]byte, error) {
	return p.document(ctx, b, func() ([]byte, error) { return p.registry.blobBytes(ctx, b) })
}

// document returns b from the cache, or else from fetch. It adds a fetched
// document to the cache.
func (p *pull) document(ctx context.Context, b blob, fetch func() ([]byte, error)) ([]byte, error) {
	if data := p.cache.blobs.document(b.digest, p.maxJSON); data != nil {
		return data, verifyBytes(data, b)
	}
	data, err := fetch()
	if err != nil {
		return nil, err
	}
	if err := verifyBytes(data, b); err != nil {
		return nil, err
	}
	return data, p.cache.blobs.addDocument(ctx, b.digest, data)
}

func (p *pull) layer(d descriptor, diffID digest.DiffID) (Layer, error) {
	b, err := d.blob()
	if err != nil {
		return Layer{}, err
	}
	if d.isForeign() && !p.cache.blobs.has(b) {
		return Layer{}, &LayerError{Digest: b.digest, Err: errForeign}
	}
	return Layer{b.digest, diffID, b.size, func(ctx context.Context) (io.ReadCloser, error) {
		return p.registry.openBlob(ctx, p.cache, b, func() { p.register(ctx) })
	}}, nil
}

// register adds the image to the cache's index when the cache has all of its
// blobs. An error becomes a notice, because the pull does not read the index.
func (p *pull) register(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entry == nil {
		return
	}
	done, err := p.cache.index.register(ctx, p.entry)
	if err != nil {
		p.registry.notice(fmt.Sprintf("cache: %v", err))
	}
	if done {
		p.entry = nil
	}
}
