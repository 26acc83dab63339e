package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/internal/base/digest"
)

// Options configure Resolve. With only CacheDir set, Resolve pulls from public
// registries for this host's platform.
type Options struct {
	Platform  string              // os/arch[/variant]; "" is linux on this host's architecture
	CacheDir  string              // blobs under oci/blobs/sha256, downloads under partial; created if missing
	PlainHTTP bool                // use http for the registry; for this host, https and http are tried in any case
	CACert    string              // PEM file of authorities to trust besides the system's
	Mirrors   map[string][]string // registry host to hosts tried first, in order; each may begin with http://
	// AllowAddresses are addresses to which the registry and its mirrors may lead
	// in any case. See the type gate.
	AllowAddresses []netip.Prefix
	Stdin          io.Reader // the content of an archive with the path "-"

	MaxJSON        int64         // bytes of one document; 0 is 8 MiB
	MaxLayers      int           // of an image; 0 is 512
	MaxWindow      int64         // bytes of a zstd window; 0 is 512 MiB, 2 GiB is the maximum
	MaxSpool       int64         // bytes that a piped or compressed archive may take on disk; 0 is 64 GiB
	MaxConnections int           // concurrent requests to registries; 0 is 4
	Retries        int           // consecutive retries of a failed request; 0 is 5
	RetryDelay     time.Duration // before the first retry, doubled for each further one; 0 is 500 ms
	MinRate        int64         // bytes per second that a download brings over a minute; 0 is 1 KiB
	Timeout        time.Duration // how long a registry may send nothing; 0 is a minute

	// AnyPlatform takes an image that is not in an index for Platform, even if its
	// configuration gives another one.
	AnyPlatform bool

	Notice func(string) // receives one-line remarks, such as retries, from several goroutines; may be nil
}

const (
	defaultMaxJSON   = 8 << 20
	defaultMaxLayers = 512
	defaultMaxSpool  = 64 << 30
	defaultMaxWindow = 512 << 20
	maxMaxWindow     = 2 << 30
)

func (o *Options) maxJSON() int64 { return cmp.Or(max(o.MaxJSON, 0), defaultMaxJSON) }
func (o *Options) maxLayers() int { return cmp.Or(max(o.MaxLayers, 0), defaultMaxLayers) }
func (o *Options) maxWindow() int64 {
	return min(cmp.Or(max(o.MaxWindow, 0), defaultMaxWindow), maxMaxWindow)
}
func (o *Options) maxSpool() int64 { return cmp.Or(max(o.MaxSpool, 0), defaultMaxSpool) }

func (o *Options) notice(text string) {
	if o.Notice != nil {
		o.Notice(text)
	}
}

// Image is an image whose layers can be read until Close.
type Image struct {
	Source    string        // as given to Resolve
	Name      string        // canonical, such as docker.io/library/debian:12; derived from the path if the source has no name
	Digest    digest.Digest // of the platform's manifest; of the configuration for docker-archive; "" for tar
	Platform  string        // os/arch[/variant]
	RawConfig []byte        // generated for tar, else the bytes that the manifest refers to
	Config    v1.ConfigFile
	NameError error    // why the source gives no single name; Name is "" then
	Warnings  []string // remarks on the configuration and the platform
	Layers    []Layer  // oldest first

	close func() error
}

// Close closes the files and connections of the image. The caller must not use
// readers of its layers after Close.
func (i *Image) Close() error {
	if i.close == nil {
		return nil
	}
	return i.close()
}

// Layer is one layer of an image.
type Layer struct {
	digest digest.Digest
	diffID digest.DiffID
	size   int64
	open   func(context.Context) (io.ReadCloser, error)
}

// Digest returns the digest of the layer's bytes as stored, or "" if the source
// does not give it.
func (l Layer) Digest() digest.Digest { return l.digest }

// DiffID returns the digest of the layer's uncompressed tar, or "" if the source
// has no configuration.
func (l Layer) DiffID() digest.DiffID { return l.diffID }

// Size returns the layer's size in bytes as stored, or -1 if it is not known.
func (l Layer) Size() int64 { return l.size }

// Open returns a reader of the layer's bytes as stored. If the source gives the
// layer's digest and size, the reader verifies them, and returns an error in
// place of io.EOF if they do not match. Reads fail after ctx ends. All errors
// are of type *LayerError.
//
// The reader of a registry's layer sends no request before the first Read. While
// it has a connection, it occupies one of Options.MaxConnections. A caller that
// reads n layers alternately needs n connections.
func (l Layer) Open(ctx context.Context) (io.ReadCloser, error) {
	r, err := l.open(ctx)
	if err != nil {
		return nil, l.wrap(err)
	}
	return &layerReader{r, l}, nil
}

func (l Layer) wrap(err error) error {
	return &LayerError{Digest: l.digest, DiffID: l.diffID, Err: err}
}

type layerReader struct {
	inner io.ReadCloser
	layer Layer
}

func (r *layerReader) Read(p []byte) (int, error) {
	n, err := r.inner.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.layer.wrap(err)
	}
	return n, err
}

// Close implements io.Closer.
func (r *layerReader) Close() error {
	if err := r.inner.Close(); err != nil {
		return r.layer.wrap(err)
	}
	return nil
}

// Resolve finds the image that the source text names for o.Platform, and reads
// its manifest and configuration, but no layer. The forms of text are those of
// the command line. Each error begins with the source or names it.
func Resolve(ctx context.Context, text string, o Options) (*Image, error) {
	s, err := parseSource(text)
	if err == nil && s.kind == kindRegistry {
		err = checkNoArchive(text)
	}
	if path, ok := errors.AsType[*PathError](err); ok {
		return nil, path
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.errorPrefix(), err)
	}
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.errorPrefix(), err)
	}
	resolve := map[string]func(context.Context, source, platform, Options) (*Image, error){
		kindRegistry:      resolveRegistry,
		kindLayout:        resolveLayout,
		kindLayoutArchive: resolveLayout,
		kindDockerArchive: resolveDockerArchive,
		kindDaemon:        resolveDaemon,
		kindTar:           resolveTar,
		kindSkopeoDir:     resolveSkopeoDir,
	}[s.kind]
	img, err := resolve(ctx, s, want, o)
	if err != nil && s.kind == kindRegistry {
		err = withPath(text, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.errorPrefix(), err)
	}
	img.Source = text
	return img, nil
}
