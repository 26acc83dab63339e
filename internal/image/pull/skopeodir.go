package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
)

// skopeoDir is a folder in the format of "skopeo copy … dir:PATH": manifest.json,
// blobs under their digest's hexadecimal digits, and further manifests with the
// suffix ".manifest.json". It presents them under the paths of an OCI layout.
type skopeoDir struct{ folder }

// open implements files.
func (s skopeoDir) open(name string) (r io.ReadCloser, size int64, err error) {
	hex, ok := strings.CutPrefix(name, blobDir)
	if !ok {
		return s.folder.open(name)
	}
	for _, n := range []string{hex, hex + ".manifest.json", hex + ".tar"} { // version 1.0 had .tar
		if r, size, err = s.folder.open(n); !errors.Is(err, errNoEntry) {
			return r, size, err
		}
	}
	return nil, 0, fmt.Errorf("%s: %w", hex, errNoEntry)
}

func resolveSkopeoDir(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		return nil, withoutPath(err)
	}
	l := &ociLayout{files: skopeoDir{folder{root}}, maxJSON: o.maxJSON()}
	img, err := l.resolveManifest(ctx, s, want, o)
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	img.close = root.Close
	return img, nil
}

// resolveManifest resolves the image of manifest.json, which may be an index.
func (l *ociLayout) resolveManifest(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	data, err := readEntry(l.files, dockerManifestFile, l.maxJSON)
	if err != nil {
		return nil, fmt.Errorf("not a folder of skopeo's: %w", err)
	}
	b := blob{digest.FromBytes(data), int64(len(data))}
	found, err := newResolver(l, want, o).fromDocument(ctx, data, b, "")
	if err != nil {
		return nil, err
	}
	return l.image(found, fileName(s.path, ""))
}
