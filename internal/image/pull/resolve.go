package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/internal/base/digest"
)

const (
	// maxNesting is how deep indexes may refer to indexes.
	maxNesting = 4
	// maxDocuments bounds how many documents are read to find one image.
	maxDocuments = 64
)

// origin gives documents by their digest, verified.
type origin interface {
	manifest(ctx context.Context, b blob) ([]byte, error)
	config(ctx context.Context, b blob) ([]byte, error)
}

// resolver walks from an index to the manifest for one platform.
type resolver struct {
	from      origin
	want      platform
	maxLayers int
	maxJSON   int64

	documents int
	have      []string // platforms seen
	skipped   error    // why an entry is no image
}

// resolved is an image whose documents were read and agree.
type resolved struct {
	manifest  blob
	mediaType string
	doc       *document
	configRef blob
	rawConfig []byte
	config    *v1.ConfigFile
	diffIDs   []digest.DiffID
	platform  platform
}

func newResolver(from origin, want platform, o Options) *resolver {
	return &resolver{from: from, want: want, maxLayers: o.maxLayers(), maxJSON: o.maxJSON()}
}

// image finds the image in the document data, which is what b names.
func (r *resolver) image(ctx context.Context, data []byte, b blob, mediaType string) (*resolved, error) {
	doc, err := parseDocument(data, mediaType)
	if err != nil {
		return nil, err
	}
	if !doc.isIndex() {
		return r.single(ctx, doc, b)
	}
	return r.choose(ctx, doc.Manifests)
}

// choose finds the image among the entries of an index.
func (r *resolver) choose(ctx context.Context, entries []descriptor) (*resolved, error) {
	found, err := r.index(ctx, entries, 1)
	if err != nil {
		return nil, err
	}
	if found == nil && len(r.have) == 0 && r.skipped != nil {
		return nil, r.skipped
	}
	if found == nil {
		return nil, &PlatformError{Want: r.want.String(), Have: r.have}
	}
	return found, nil
}

// index returns the best of entries, or nil. Entries that say their platform
// come first, since others must be read to know it.
func (r *resolver) index(ctx context.Context, entries []descriptor, depth int) (*resolved, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("index nested more than %d deep", maxNesting)
	}
	best, bestFit := -1, -1
	for i, e := range entries {
		if e.Platform == nil || e.isAttestation() {
			continue
		}
		p := newPlatform(e.Platform.OS, e.Platform.Architecture, e.Platform.Variant)
		r.saw(p)
		if fit := r.want.fits(p); fit >= 0 && (best < 0 || fit < bestFit) {
			best, bestFit = i, fit
		}
	}
	if best >= 0 {
		found, err := r.entry(ctx, entries[best], depth)
		if found != nil || err != nil {
			return found, err
		}
	}
	for _, e := range entries {
		if e.Platform != nil || e.isAttestation() {
			continue
		}
		found, err := r.entry(ctx, e, depth)
		if found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

// entry reads an index's entry. It returns nil when that is an image for
// another platform, or an artifact.
func (r *resolver) entry(ctx context.Context, e descriptor, depth int) (*resolved, error) {
	b, err := e.blob()
	if err != nil {
		return nil, err
	}
	data, err := r.read(ctx, b, r.from.manifest)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(data, e.MediaType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.digest, err)
	}
	if doc.isIndex() {
		return r.index(ctx, doc.Manifests, depth+1)
	}
	found, err := r.single(ctx, doc, b)
	if e.Platform != nil || err == nil {
		return found, err
	}
	if _, ok := errors.AsType[*PlatformError](err); ok {
		return nil, nil
	}
	if _, ok := errors.AsType[*artifactError](err); ok {
		r.skipped = err
		return nil, nil
	}
	return nil, err
}

// read fetches a document within the limits.
func (r *resolver) read(ctx context.Context, b blob, fetch func(context.Context, blob) ([]byte, error)) ([]byte, error) {
	if r.documents++; r.documents > maxDocuments {
		return nil, fmt.Errorf("index leads to more than %d documents", maxDocuments)
	}
	if b.size > r.maxJSON {
		return nil, tooLarge("document "+string(b.digest), b.size, r.maxJSON)
	}
	return fetch(ctx, b)
}

// single reads the configuration of a manifest and checks that all agree.
func (r *resolver) single(ctx context.Context, doc *document, b blob) (*resolved, error) {
	if err := doc.checkImage(r.maxLayers); err != nil {
		return nil, err
	}
	config, err := doc.Config.blob()
	if err != nil {
		return nil, err
	}
	data, err := r.read(ctx, config, r.from.config)
	if err != nil {
		return nil, err
	}
	out := &resolved{manifest: b, mediaType: doc.MediaType, doc: doc, configRef: config, rawConfig: data}
	if out.mediaType == "" {
		out.mediaType = typeOCIManifest
	}
	if out.config, out.diffIDs, err = parseConfig(data); err != nil {
		return nil, err
	}
	if len(out.diffIDs) != len(doc.Layers) {
		return nil, fmt.Errorf("manifest has %d layers, its configuration %d", len(doc.Layers), len(out.diffIDs))
	}
	out.platform, err = r.check(out.config)
	return out, err
}

// check wants the configuration to be for the platform. What it leaves out is
// taken for a match, as old builders did.
func (r *resolver) check(c *v1.ConfigFile) (platform, error) {
	p := r.want
	if c.OS != "" {
		p.os = c.OS
	}
	if c.Architecture != "" {
		p.arch, p.variant = c.Architecture, c.Variant
	}
	p = newPlatform(p.os, p.arch, p.variant)
	if c.Variant == "" && p.os == r.want.os && p.arch == r.want.arch {
		return p, nil // an index may say more than the configuration
	}
	if r.want.fits(p) < 0 {
		r.saw(p)
		return p, &PlatformError{Want: r.want.String(), Have: r.have}
	}
	return p, nil
}

func (r *resolver) saw(p platform) {
	if s := p.String(); !slices.Contains(r.have, s) {
		r.have = append(r.have, s)
	}
}

// image is what Resolve returns of it, but for layers and names.
func (f *resolved) image() *Image {
	return &Image{
		Digest: f.manifest.digest, Platform: f.platform.String(),
		RawConfig: f.rawConfig, Config: *f.config,
	}
}
