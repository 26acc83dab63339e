package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	given     *platform // of an image that is not in an index; nil if its configuration decides

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
	*imageConfig
	platform platform
}

func newResolver(from documentFetcher, want platform, o Options) *resolver {
	r := &resolver{from: from, want: want, maxLayers: o.maxLayers(), maxJSON: o.maxJSON()}
	if o.AnyPlatform {
		r.given = &want
	}
	return r
}

// fromDocument finds the image in a manifest or an index. b is the digest and
// the size of data.
func (r *resolver) fromDocument(ctx context.Context, data []byte, b blob, mediaType string) (*resolved, error) {
	doc, err := parseDocument(data, mediaType)
	if err != nil {
		return nil, err
	}
	if !doc.isIndex() {
		return r.fromManifest(ctx, doc, b, r.given)
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
	if found == nil {
		return nil, r.noImage()
	}
	return found, nil
}

// noImage returns the error for an index without an image that fits.
func (r *resolver) noImage() error {
	if len(r.have) == 0 && r.artifactErr != nil {
		return r.artifactErr
	}
	return &PlatformError{Want: r.want.String(), Have: r.have}
}

// fromIndex returns the image that fits the platform best, or nil. Entries with
// a platform have priority, because others must be read to find theirs.
func (r *resolver) fromIndex(ctx context.Context, entries []descriptor, depth int) (*resolved, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("index nested more than %d deep", maxNesting)
	}
	best, bestFit := -1, -1
	for i, e := range entries {
		p := e.platform()
		if p == nil || e.isAttestation() {
			continue
		}
		r.addPlatform(*p)
		if fit := r.want.fits(*p); fit >= 0 && (best < 0 || fit < bestFit) {
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
		if e.platform() != nil || e.isAttestation() {
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
	found, err := r.fromManifest(ctx, doc, b, e.platform())
	if e.platform() != nil || err == nil {
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
// two are not consistent, or if the image is for another platform. given is the
// platform that the index gives, or nil.
func (r *resolver) fromManifest(ctx context.Context, doc *document, b blob, given *platform) (*resolved, error) {
	if err := doc.checkImage(r.maxLayers); err != nil {
		return nil, err
	}
	config, err := doc.Config.blob()
	if err != nil {
		return nil, err
	}
	data, err := r.readDocument(ctx, config, r.from.config)
	if _, ok := errors.AsType[*LimitError](err); ok {
		return nil, doc.unless(err)
	}
	if err != nil {
		return nil, err
	}
	out := &resolved{manifest: b, mediaType: doc.MediaType, doc: doc, configRef: config, rawConfig: data}
	if out.mediaType == "" {
		out.mediaType = typeOCIManifest
	}
	if out.imageConfig, err = doc.parseConfig(data); err != nil {
		return nil, err
	}
	out.platform, err = r.checkPlatform(out.imageConfig, given)
	return out, err
}

// parseConfig parses the configuration of the manifest. If its media type does
// not say that it is an image's, its content decides.
func (d *document) parseConfig(data []byte) (*imageConfig, error) {
	c, err := parseConfig(data)
	if err != nil {
		return nil, d.unless(err)
	}
	if !c.hasRoot && !isImageConfig(d.Config.MediaType) {
		return nil, d.unless(errors.New("its configuration has no list of layers"))
	}
	if len(c.diffIDs) != len(d.Layers) {
		return nil, d.unless(fmt.Errorf("manifest has %d layers, its configuration %d", len(d.Layers), len(c.diffIDs)))
	}
	return c, nil
}

// checkPlatform returns the platform of a configuration, and a *PlatformError if
// the wanted platform cannot run it. A missing field counts as a match, because
// old builders omitted them. If the index gives a platform that fits, it decides,
// with a warning: cross builds often copy the configuration of another platform.
func (r *resolver) checkPlatform(config *imageConfig, given *platform) (platform, error) {
	p, c := r.want, config.file
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
	if r.want.fits(p) < 0 && given != nil && r.want.fits(*given) >= 0 {
		config.warnings = append(config.warnings,
			fmt.Sprintf("image is for %s by its index, for %s by its configuration: the index decides", given, p))
		return *given, nil
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
		RawConfig: f.rawConfig, Config: f.file, Warnings: f.warnings,
	}
}
