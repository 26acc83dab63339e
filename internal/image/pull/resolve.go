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
	// maxNesting is the maximum number of nested indexes.
	maxNesting = 4
	// maxDocuments is the maximum number of documents that are read to find one
	// image.
	maxDocuments = 64
)

// documentFetcher returns documents by digest, and verifies them.
type documentFetcher interface {
	manifest(ctx context.Context, b blob) ([]byte, error)
	config(ctx context.Context, b blob) ([]byte, error)
}

// resolver follows an index to the manifest for one platform.
type resolver struct {
	from      documentFetcher
	want      platform
	maxLayers int
	maxJSON   int64

	documents   int      // read so far
	have        []string // platforms seen
	artifactErr error    // of the last entry that is not an image
}

// resolved is an image whose manifest and configuration were read and are
// consistent with each other.
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

func newResolver(from documentFetcher, want platform, o Options) *resolver {
	return &resolver{from: from, want: want, maxLayers: o.maxLayers(), maxJSON: o.maxJSON()}
}

// fromDocument finds the image in a manifest or an index. b is the digest and
// the size of data.
func (r *resolver) fromDocument(ctx context.Context, data []byte, b blob, mediaType string) (*resolved, error) {
	doc, err := parseDocument(data, mediaType)
	if err != nil {
		return nil, err
	}
	if !doc.isIndex() {
		return r.fromManifest(ctx, doc, b)
	}
	return r.fromEntries(ctx, doc.Manifests)
}

// fromEntries finds the image among the entries of an index. It returns a
// *PlatformError if there is none for the platform.
func (r *resolver) fromEntries(ctx context.Context, entries []descriptor) (*resolved, error) {
	found, err := r.fromIndex(ctx, entries, 1)
	if err != nil {
		return nil, err
	}
	if found == nil && len(r.have) == 0 && r.artifactErr != nil {
		return nil, r.artifactErr
	}
	if found == nil {
		return nil, &PlatformError{Want: r.want.String(), Have: r.have}
	}
	return found, nil
}

// fromIndex returns the image that fits the platform best, or nil. Entries with
// a platform have priority, because others must be read to find theirs.
func (r *resolver) fromIndex(ctx context.Context, entries []descriptor, depth int) (*resolved, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("index nested more than %d deep", maxNesting)
	}
	best, bestFit := -1, -1
	for i, e := range entries {
		if e.Platform == nil || e.isAttestation() {
			continue
		}
		p := newPlatform(e.Platform.OS, e.Platform.Architecture, e.Platform.Variant)
		r.addPlatform(p)
		if fit := r.want.fits(p); fit >= 0 && (best < 0 || fit < bestFit) {
			best, bestFit = i, fit
		}
	}
	if best >= 0 {
		found, err := r.fromEntry(ctx, entries[best], depth)
		if found != nil || err != nil {
			return found, err
		}
	}
	for _, e := range entries {
		if e.Platform != nil || e.isAttestation() {
			continue
		}
		found, err := r.fromEntry(ctx, e, depth)
		if found != nil || err != nil {
			return found, err
		}
	}
	return nil, nil
}

// fromEntry reads the entry of an index. If the entry has no platform, and is an
// artifact or an image for another platform, fromEntry returns nil.
func (r *resolver) fromEntry(ctx context.Context, e descriptor, depth int) (*resolved, error) {
	b, err := e.blob()
	if err != nil {
		return nil, err
	}
	data, err := r.readDocument(ctx, b, r.from.manifest)
	if err != nil {
		return nil, err
	}
	doc, err := parseDocument(data, e.MediaType)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.digest, err)
	}
	if doc.isIndex() {
		return r.fromIndex(ctx, doc.Manifests, depth+1)
	}
	found, err := r.fromManifest(ctx, doc, b)
	if e.Platform != nil || err == nil {
		return found, err
	}
	if _, ok := errors.AsType[*PlatformError](err); ok {
		return nil, nil
	}
	if _, ok := errors.AsType[*artifactError](err); ok {
		r.artifactErr = err
		return nil, nil
	}
	return nil, err
}

// readDocument fetches a document. It returns an error if the document is too
// large, or if there were too many.
func (r *resolver) readDocument(ctx context.Context, b blob, fetch func(context.Context, blob) ([]byte, error)) ([]byte, error) {
	if r.documents++; r.documents > maxDocuments {
		return nil, fmt.Errorf("index leads to more than %d documents", maxDocuments)
	}
	if b.size > r.maxJSON {
		return nil, tooLarge("document "+string(b.digest), b.size, r.maxJSON)
	}
	return fetch(ctx, b)
}

// fromManifest reads the configuration of a manifest. It returns an error if the
// two are not consistent, or if the image is for another platform.
func (r *resolver) fromManifest(ctx context.Context, doc *document, b blob) (*resolved, error) {
	if err := doc.checkImage(r.maxLayers); err != nil {
		return nil, err
	}
	config, err := doc.Config.blob()
	if err != nil {
		return nil, err
	}
	data, err := r.readDocument(ctx, config, r.from.config)
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
	out.platform, err = r.checkPlatform(out.config)
	return out, err
}

// checkPlatform returns the platform of a configuration, and a *PlatformError if
// the wanted platform cannot run it. A missing field counts as a match, because
// old builders omitted them.
func (r *resolver) checkPlatform(c *v1.ConfigFile) (platform, error) {
	p := r.want
	if c.OS != "" {
		p.os = c.OS
	}
	if c.Architecture != "" {
		p.arch, p.variant = c.Architecture, c.Variant
	}
	p = newPlatform(p.os, p.arch, p.variant)
	if c.Variant == "" && p.os == r.want.os && p.arch == r.want.arch {
		return p, nil // the index may have had the variant
	}
	if r.want.fits(p) < 0 {
		r.addPlatform(p)
		return p, &PlatformError{Want: r.want.String(), Have: r.have}
	}
	return p, nil
}

func (r *resolver) addPlatform(p platform) {
	if s := p.String(); !slices.Contains(r.have, s) {
		r.have = append(r.have, s)
	}
}

// newImage returns the image without its layers and names.
func (f *resolved) newImage() *Image {
	return &Image{
		Digest: f.manifest.digest, Platform: f.platform.String(),
		RawConfig: f.rawConfig, Config: *f.config,
	}
}
