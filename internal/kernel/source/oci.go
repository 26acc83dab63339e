package source

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/kernel"
)

// The documents of the OCI image specification, with the fields that an image
// of one layer needs.
type (
	descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      digest.Digest     `json:"digest"`
		Size        int64             `json:"size"`
		Platform    *platform         `json:"platform,omitempty"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	platform struct {
		Architecture string `json:"architecture"`
		OS           string `json:"os"`
	}
	imageConfig struct {
		platform
		Config struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
		RootFS struct {
			Type    string          `json:"type"`
			DiffIDs []digest.Digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	imageManifest struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Config        descriptor   `json:"config"`
		Layers        []descriptor `json:"layers"`
	}
	imageIndex struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}
)

const ociType = "application/vnd.oci.image."

// writeOCI writes an oci-archive: the image layout of the OCI image
// specification in a tar. The layer is not compressed; tools compress it when
// they push the image. writeOCI makes the layer twice, because the layer's name
// in the archive is its digest.
func writeOCI(ctx context.Context, out io.Writer, k *kernel.Kernel) error {
	sum := newHashWriter()
	if err := WriteBundle(ctx, sum, k); err != nil {
		return err
	}
	buf := bufio.NewWriterSize(out, 1<<20)
	l := &layoutWriter{w: tar.NewWriter(buf)}
	for _, dir := range []string{"blobs", "blobs/sha256"} {
		l.failed = append(l.failed, l.w.WriteHeader(tarHeader(dir, tar.TypeDir, 0)))
	}
	layer := descriptor{MediaType: ociType + "layer.v1.tar", Digest: sum.digest(), Size: sum.size}
	l.failed = append(l.failed,
		l.w.WriteHeader(tarHeader("blobs/sha256/"+layer.Digest.Hex(), tar.TypeReg, layer.Size)), WriteBundle(ctx, l.w, k))
	l.documents(k, layer)
	return errors.Join(append(l.failed, l.w.Close(), buf.Flush())...)
}

// layoutWriter writes the documents of a layout and collects the errors.
type layoutWriter struct {
	w      *tar.Writer
	failed []error
}

func (l *layoutWriter) documents(k *kernel.Kernel, layer descriptor) {
	config := imageConfig{platform: platform{Architecture: k.Arch, OS: "linux"}}
	config.Config.Labels = map[string]string{"org.opencontainers.image.version": k.Release}
	config.RootFS.Type, config.RootFS.DiffIDs = "layers", []digest.Digest{layer.Digest}
	root := l.blob("manifest.v1+json", imageManifest{
		SchemaVersion: 2, MediaType: ociType + "manifest.v1+json",
		Config: l.blob("config.v1+json", config), Layers: []descriptor{layer},
	})
	root.Platform = &config.platform
	root.Annotations = map[string]string{"org.opencontainers.image.ref.name": k.ShownName()}
	l.file("index.json", imageIndex{SchemaVersion: 2, MediaType: ociType + "index.v1+json", Manifests: []descriptor{root}})
	l.file("oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"})
}

// blob writes v as a blob of the layout and returns its descriptor.
func (l *layoutWriter) blob(mediaType string, v any) descriptor {
	data, err := json.Marshal(v)
	sum := digest.FromBytes(data)
	l.failed = append(l.failed, err, writeTarFile(l.w, "blobs/sha256/"+sum.Hex(), data))
	return descriptor{MediaType: ociType + mediaType, Digest: sum, Size: int64(len(data))}
}

func (l *layoutWriter) file(name string, v any) {
	data, err := json.Marshal(v)
	l.failed = append(l.failed, err, writeTarFile(l.w, name, data))
}
