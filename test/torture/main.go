// Command torture pushes the torture corpus to a registry: small OCI images with content that real builders
// seldom combine (every file type, odd names, times at the limits, hard links across layers, whiteouts in
// awkward places). It defines the content of the images. Other programs define the tree that they unpack to.
// The images depend on nothing but this source.
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
)

// created returns the creation time of every image, which is also the time of parent folders without an entry.
func created() time.Time { return time.Date(2021, 2, 3, 4, 5, 6, 0, time.UTC) }

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: torture HOST:PORT")
		os.Exit(2)
	}
	if err := push(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		os.Exit(1)
	}
}

// push pushes demo/torture with the tags 1, zstd, names and multi to a registry over plain HTTP.
func push(registry string) error {
	layers := [][]entry{lowerLayer(), middleLayer(), upperLayer()}
	torture, err := image(runtime.GOARCH, gzipLayer, layers...)
	if err != nil {
		return err
	}
	packed, err := image(runtime.GOARCH, zstdLayer, layers...)
	if err != nil {
		return err
	}
	names, err := image(runtime.GOARCH, gzipLayer, nameLayer())
	if err != nil {
		return err
	}
	repository, err := name.NewRepository(registry+"/demo/torture", name.Insecure)
	if err != nil {
		return fmt.Errorf("parse registry: %w", err)
	}
	for _, made := range []struct {
		tag string
		v1.Image
	}{{"1", torture}, {"zstd", packed}, {"names", names}} {
		if err := remote.Write(repository.Tag(made.tag), made.Image); err != nil {
			return fmt.Errorf("push torture:%s: %w", made.tag, err)
		}
	}
	index, err := multi(torture)
	if err != nil {
		return err
	}
	if err := remote.WriteIndex(repository.Tag("multi"), index); err != nil {
		return fmt.Errorf("push torture:multi: %w", err)
	}
	return nil
}

// image returns an image for linux/arch with the given layers, oldest first.
func image(arch string, pack func([]byte) (v1.Layer, error), layers ...[]entry) (v1.Image, error) {
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	for i, entries := range layers {
		stream, err := tarOf(entries)
		if err != nil {
			return nil, fmt.Errorf("write layer %d: %w", i, err)
		}
		layer, err := pack(stream)
		if err != nil {
			return nil, fmt.Errorf("pack layer %d: %w", i, err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, fmt.Errorf("append layer %d: %w", i, err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read config: %w", err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", arch
	config.Created = v1.Time{Time: created()}
	config.Config.Cmd = []string{"/bin/sh"}
	return mutate.ConfigFile(img, config)
}

// multi returns an index inside an index, a form that some builders write. It has an image for the host's platform and
// one with other content for a foreign platform.
func multi(native v1.Image) (v1.ImageIndex, error) {
	foreign := "s390x"
	other, err := image(foreign, gzipLayer, []entry{file("etc/foreign", 0o644, "not for this host\n")})
	if err != nil {
		return nil, err
	}
	platform := func(arch string) v1.Descriptor {
		return v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}
	}
	inner := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: other, Descriptor: platform(foreign)},
		mutate.IndexAddendum{Add: native, Descriptor: platform(runtime.GOARCH)})
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: inner}), nil
}

func gzipLayer(stream []byte) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(stream)), nil
	}, tarball.WithMediaType(types.OCILayer))
}

func zstdLayer(stream []byte) (v1.Layer, error) {
	// An encoder that is used by EncodeAll alone needs no Close.
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		return nil, err
	}
	plain := static.NewLayer(stream, types.OCIUncompressedLayer)
	diffID, err := plain.DiffID()
	if err != nil {
		return nil, err
	}
	return packedLayer{static.NewLayer(encoder.EncodeAll(stream, nil), types.OCILayerZStd), diffID}, nil
}

// A packedLayer is a static layer with the right diffID. A static layer computes it from the compressed bytes.
type packedLayer struct {
	v1.Layer
	diffID v1.Hash
}

// DiffID returns the digest of the uncompressed tar.
func (l packedLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
