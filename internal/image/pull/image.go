package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/banger-vm/banger/internal/base/digest"
)

// Options are what a pull can be told. The zero value but for CacheDir pulls
// from public registries for this host.
type Options struct {
	Platform  string              // os/arch[/variant]; "" is linux on this host's architecture
	CacheDir  string              // blobs under oci/blobs/sha256, downloads under partial; made when missing
	PlainHTTP bool                // speak http to the registry; to this host itself both are tried anyway
	CACert    string              // PEM file of authorities to trust besides the system's
	Mirrors   map[string][]string // registry host to hosts tried first, in order; each may begin with http://
	Stdin     io.Reader           // what the path "-" of an archive means

	MaxJSON        int64         // bytes of one document; 0 is 8 MiB
	MaxLayers      int           // of an image; 0 is 512
	MaxSpool       int64         // bytes that a piped or compressed archive may take on disk; 0 is 64 GiB
	MaxConnections int           // requests to registries under way at a time; 0 is 4
	Retries        int           // of a request that failed, in a row; 0 is 5
	RetryDelay     time.Duration // before the first retry, doubled for each further one; 0 is 500 ms
	Timeout        time.Duration // of a registry that sends nothing; 0 is a minute

	Notice func(string) // one-line remarks, such as retries; from several goroutines; may be nil
}

const (
	defaultMaxJSON   = 8 << 20
	defaultMaxLayers = 512
	defaultMaxSpool  = 64 << 30
)

func (o *Options) maxJSON() int64  { return cmp.Or(max(o.MaxJSON, 0), defaultMaxJSON) }
func (o *Options) maxLayers() int  { return cmp.Or(max(o.MaxLayers, 0), defaultMaxLayers) }
func (o *Options) maxSpool() int64 { return cmp.Or(max(o.MaxSpool, 0), defaultMaxSpool) }

func (o *Options) notice(text string) {
	if o.Notice != nil {
		o.Notice(text)
	}
}

// Image is an image whose layers can be read until Close.
type Image struct {
	Source    string        // as given to Resolve
	Name      string        // canonical, such as docker.io/library/debian:12; made from the path where there is none
	Digest    digest.Digest // of the platform's manifest; of the configuration for docker-archive; "" for tar
	Platform  string        // os/arch[/variant]
	RawConfig []byte        // made up for tar, else as its digest names it
	Config    v1.ConfigFile
	Layers    []Layer // oldest first

	close func() error
}

// Close gives back what the image holds open. Readers of its layers must not
// be used after it.
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

// Digest names the layer's bytes as stored, "" when the source does not.
func (l Layer) Digest() digest.Digest { return l.digest }

// DiffID names the layer's tar, "" for a source without configuration.
func (l Layer) DiffID() digest.DiffID { return l.diffID }

// Size returns how many bytes are stored, -1 when that is not known.
func (l Layer) Size() int64 { return l.size }

// Open returns the layer's bytes as stored. Where the source names digest and
// size they are verified: the reader returns an error in place of io.EOF when
// they do not match. The reader ends with ctx. All errors are of type
// *LayerError.
//
// A layer of a registry asks for nothing before the first Read. While a
// reader has a connection it takes one of Options.MaxConnections, so whoever
// reads several layers in turns needs as many.
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

// Resolve finds the image that source means for the wanted platform and reads
// its manifest and configuration, but no layer. The forms of source are those
// of the command line. An error begins with what was being pulled or read.
func Resolve(ctx context.Context, text string, o Options) (*Image, error) {
	s, err := parseSource(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.what(), err)
	}
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.what(), err)
	}
	resolve := map[string]func(context.Context, source, platform, Options) (*Image, error){
		kindRegistry:      resolveRegistry,
		kindLayout:        resolveLayout,
		kindLayoutArchive: resolveLayout,
		kindDockerArchive: resolveDockerArchive,
		kindDaemon:        resolveDaemon,
		kindTar:           resolveTar,
	}[s.kind]
	img, err := resolve(ctx, s, want, o)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.what(), err)
	}
	img.Source = text
	return img, nil
}
