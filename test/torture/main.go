// Command torture writes the torture corpus: small OCI images whose layers hold what real builders
// seldom produce together (every file type, odd names, times at the limits, hard links across layers,
// whiteouts in awkward places). It owns the images' content and pushes them to a registry; what the content
// must become on a disk is judged by other programs. The images are a function of this source.
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

// created is the creation time of every image, and so the time of the parents no layer names.
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

// push puts the tags torture:1, :zstd, :names and :multi of demo/ into the registry, which speaks plain http.
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

// image packs layers, oldest first, as an image for linux/arch.
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

// multi is an index inside an index, as some builders write it: the host's platform and a foreign one
// whose content differs.
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
	// EncodeAll alone starts nothing that Close would have to end.
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

// packedLayer corrects the diffID of a static layer, which takes its bytes for a plain tar.
type packedLayer struct {
	v1.Layer
	diffID v1.Hash
}

// DiffID is the digest of the tar inside.
func (l packedLayer) DiffID() (v1.Hash, error) { return l.diffID, nil }
