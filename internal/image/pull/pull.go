package pull

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/banger-vm/banger/internal/base/digest"
)

// pull is one image on its way from a registry into the cache.
type pull struct {
	registry *registry
	cache    *Cache
	maxJSON  int64

	mu    sync.Mutex
	entry *entry // for the cache's index; nil once it is there
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
	data, mediaType, err := p.root(ctx, ref)
	if err != nil {
		return nil, err
	}
	b := blob{digestOf(data), int64(len(data))}
	found, err := newResolver(p, want, o).image(ctx, data, b, mediaType)
	if err != nil {
		return nil, err
	}
	img := found.image()
	img.Name = canonical(ref)
	img.close = func() error { p.registry.close(); return nil }
	if b == found.manifest {
		if err := p.cache.putDocument(ctx, b.digest, data); err != nil {
			return nil, err
		}
	}
	p.entry = &entry{name: img.Name, mediaType: found.mediaType, platform: found.platform, manifest: found.manifest}
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

// root returns the document that ref names: from the cache where ref is a
// digest, since a tag may have moved.
func (p *pull) root(ctx context.Context, ref name.Reference) (data []byte, mediaType string, err error) {
	want := identifierDigest(ref)
	if want != "" {
		if data := p.cache.document(want, p.maxJSON); data != nil {
			return data, "", nil
		}
	}
	data, mediaType, err = p.registry.manifest(ctx, ref.Identifier())
	if err != nil {
		return nil, "", err
	}
	if got := digestOf(data); want != "" && got != want {
		return nil, "", fmt.Errorf("manifest %s: %w", want, &mismatchError{got})
	}
	return data, mediaType, nil
}

// manifest implements origin.
func (p *pull) manifest(ctx context.Context, b blob) ([]byte, error) {
	return p.document(ctx, b, func() ([]byte, error) {
		data, _, err := p.registry.manifest(ctx, string(b.digest))
		return data, err
	})
}

// config implements origin.
func (p *pull) config(ctx context.Context, b blob) ([]byte, error) {
	return p.document(ctx, b, func() ([]byte, error) { return p.registry.blobBytes(ctx, b) })
}

func (p *pull) document(ctx context.Context, b blob, fetch func() ([]byte, error)) ([]byte, error) {
	if data := p.cache.document(b.digest, p.maxJSON); data != nil {
		return data, verifyBytes(data, b)
	}
	data, err := fetch()
	if err != nil {
		return nil, err
	}
	if err := verifyBytes(data, b); err != nil {
		return nil, err
	}
	return data, p.cache.putDocument(ctx, b.digest, data)
}

func (p *pull) layer(d descriptor, diffID digest.DiffID) (Layer, error) {
	b, err := d.blob()
	if err != nil {
		return Layer{}, err
	}
	if d.isForeign() && !p.cache.has(b) {
		return Layer{}, &LayerError{Digest: b.digest, Err: errForeign}
	}
	return Layer{b.digest, diffID, b.size, func(ctx context.Context) (io.ReadCloser, error) {
		return p.registry.openBlob(ctx, p.cache, b, func() { p.register(ctx) })
	}}, nil
}

// register names the image in the cache's index as soon as all of it is
// there. The pull itself does not need that, so trouble is only noted.
func (p *pull) register(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.entry == nil {
		return
	}
	done, err := p.cache.register(ctx, p.entry)
	if err != nil {
		p.registry.notice(fmt.Sprintf("cache: %v", err))
	}
	if done {
		p.entry = nil
	}
}
