package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
)

// ociLayout reads images from an OCI image layout (OCI image specification,
// image-layout.md), which is a folder or an archive.
type ociLayout struct {
	files   files
	maxJSON int64
}

// folder is a layout on disk. os.Root follows no symbolic link out of it.
type folder struct{ root *os.Root }

// open implements files.
func (f folder) open(name string) (io.ReadCloser, int64, error) {
	info, err := f.root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is not a regular file") // opening a fifo or a device can block or have effects
	}
	var file *os.File
	if err == nil {
		file, err = f.root.Open(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = errNoEntry
	}
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", name, withoutPath(err))
	}
	return file, info.Size(), nil
}

func resolveLayout(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	l := &ociLayout{maxJSON: o.maxJSON()}
	var closeFiles func() error
	if s.kind == kindLayout {
		root, err := os.OpenRoot(s.path)
		if err != nil {
			return nil, withoutPath(err)
		}
		l.files, closeFiles = folder{root}, root.Close
	} else {
		a, err := openArchive(ctx, s, o)
		if err != nil {
			return nil, err
		}
		l.files, closeFiles = a, a.close
	}
	img, err := l.resolve(ctx, s, want, o)
	if err != nil {
		return nil, errors.Join(err, closeFiles())
	}
	img.close = closeFiles
	return img, nil
}

func (l *ociLayout) resolve(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	if err := l.checkVersion(); err != nil {
		return nil, err
	}
	data, err := readEntry(l.files, indexFile, l.maxJSON)
	if err != nil {
		return nil, err
	}
	index, err := parseDocument(data, typeOCIIndex)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", indexFile, err)
	}
	entries, err := selectEntries(index.Manifests, s.tag)
	if err != nil {
		return nil, err
	}
	found, entry, err := newResolver(l, want, o).choose(ctx, entries)
	if err != nil {
		return nil, err
	}
	name, nameErr := entry.imageName(s.tag)
	full := qualifiedName(name)
	if full == "" && nameErr == nil {
		full = fileName(s.path, name)
	}
	img, err := l.image(found, full)
	if err == nil {
		img.NameError = nameErr
	}
	return img, err
}

// image returns the image with its layers.
func (l *ociLayout) image(found *resolved, name string) (*Image, error) {
	img := found.newImage()
	img.Name = name
	for i, d := range found.doc.Layers {
		layer, err := l.layer(d, found.diffIDs[i])
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, layer)
	}
	return img, nil
}

// qualifiedName returns the canonical form of a layout's name annotation. It
// returns "" if the annotation is only a tag, which is common.
func qualifiedName(name string) string {
	if !isQualified(name) {
		return ""
	}
	return CanonicalName(name)
}

func (l *ociLayout) checkVersion() error {
	data, err := readEntry(l.files, layoutFile, l.maxJSON)
	if err != nil {
		return fmt.Errorf("not an OCI image layout: %w", err)
	}
	var v struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("parse %s: %s", layoutFile, printable(err.Error()))
	}
	if !strings.HasPrefix(v.Version, "1.") {
		return fmt.Errorf("OCI image layout of version %q, want 1", printable(v.Version))
	}
	return nil
}

// blobDir is the folder of a layout's blobs.
const blobDir = "blobs/sha256/"

func blobName(d digest.Digest) string { return blobDir + d.Hex() }

// manifest implements documentFetcher.
func (l *ociLayout) manifest(_ context.Context, b blob) ([]byte, error) {
	data, err := readEntry(l.files, blobName(b.digest), l.maxJSON)
	if err != nil {
		return nil, err
	}
	return data, verifyBytes(data, b)
}

// config implements documentFetcher.
func (l *ociLayout) config(ctx context.Context, b blob) ([]byte, error) { return l.manifest(ctx, b) }

func (l *ociLayout) layer(d descriptor, diffID digest.DiffID) (Layer, error) {
	b, err := d.blob()
	if err != nil {
		return Layer{}, err
	}
	r, size, err := l.files.open(blobName(b.digest))
	if errors.Is(err, errNoEntry) && d.isForeign() {
		err = errForeign
	}
	if err == nil {
		err = r.Close()
	}
	if err == nil && size != b.size {
		err = fmt.Errorf("%d bytes, want %d", size, b.size)
	}
	if err != nil {
		return Layer{}, &LayerError{Digest: b.digest, Err: err}
	}
	return Layer{b.digest, diffID, b.size, func(ctx context.Context) (io.ReadCloser, error) {
		r, _, err := l.files.open(blobName(b.digest))
		if err != nil {
			return nil, err
		}
		return verify(&contextFile{r, withContext(ctx, r)}, b), nil
	}}, nil
}
