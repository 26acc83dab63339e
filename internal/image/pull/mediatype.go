package pull

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// isImageConfig reports whether t is the media type of an image's configuration.
// "" is one, because old tools left the type out.
func isImageConfig(t string) bool { return t == typeOCIConfig || t == typeDockerConfig || t == "" }

// artifactConfigs are the beginnings of media types of configurations that are
// not an image's. Registries give images other types too, such as
// application/octet-stream, so the type does not tell which is one.
var artifactConfigs = []string{
	"application/vnd.oci.empty.",            // OCI image specification, manifest.md
	"application/vnd.unknown.",              // ORAS
	"application/vnd.docker.plugin.",        // its configuration resembles an image's
	"application/vnd.docker.ai.",            // models
	"application/vnd.buildkit.cacheconfig.", // a build cache
	"application/vnd.cncf.",                 // Helm, Flux and others
	"application/vnd.cnab.",
	"application/vnd.wasm.", "application/vnd.module.wasm.",
	"application/vnd.dev.", // cosign, Tekton
	"application/vnd.in-toto",
	"application/vnd.goharbor.",
	"application/vnd.gardener.",
}

// checkArtifact returns an *artifactError if the manifest says that it is not an
// image's.
func (d *document) checkArtifact() error {
	if d.ArtifactType != "" {
		return &artifactError{mediaType: printable(d.ArtifactType)}
	}
	t := d.Config.MediaType
	if slices.ContainsFunc(artifactConfigs, func(prefix string) bool { return strings.HasPrefix(t, prefix) }) {
		return &artifactError{mediaType: printable(t)}
	}
	return nil
}

// artifactError reports a manifest of an artifact other than an image.
type artifactError struct {
	mediaType string
	reason    error // may be nil
}

func (e *artifactError) Error() string {
	s := fmt.Sprintf("artifact of type %q is not an image", e.mediaType)
	if e.reason != nil {
		s += ": " + e.reason.Error()
	}
	return s
}

func (e *artifactError) Unwrap() error { return e.reason }

// unless returns err if the configuration's type says that it is an image's, and
// an *artifactError with this reason otherwise.
func (d *document) unless(err error) error {
	if err == nil || isImageConfig(d.Config.MediaType) {
		return err
	}
	return &artifactError{printable(d.Config.MediaType), err}
}

// genericTypes are media types that registries and tools give to layers, and that
// say nothing about their content.
var genericTypes = []string{
	"", "application/octet-stream", "application/x-tar", "application/tar", "application/gzip", "application/x-gzip",
	"application/tar+gzip", "application/zstd", "application/x-gtar",
}

// checkLayer returns an error if the layer's media type or annotations say that
// it is no tar. It does not check the compression, because package layer detects
// it from the content.
func (d descriptor) checkLayer() error {
	t, _, _ := strings.Cut(d.MediaType, ";")
	for _, k := range []struct{ part, name string }{
		{"+encrypted", "encrypted"},
		{"nydus", "in the format of Nydus"},
		{"erofs", "an EROFS file system"},
		{"squashfs", "a SquashFS file system"},
		{"wasm", "WebAssembly"},
	} {
		if strings.Contains(t, k.part) {
			return fmt.Errorf("layer is %s (media type %q), which is not supported: want a tar", k.name, printable(t))
		}
	}
	for key := range d.Annotations {
		if strings.HasPrefix(key, "containerd.io/snapshot/overlaybd/") {
			return errors.New("layer is in the format of OverlayBD, which is not supported: want a tar")
		}
	}
	isTar := strings.HasPrefix(t, typeOCILayer) || strings.HasPrefix(t, typeDockerLayer)
	if slices.Contains(genericTypes, t) || isTar && strings.Contains(t, "tar") {
		return nil
	}
	return fmt.Errorf("media type %q is not a layer", printable(t))
}
