package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
)

// dockerManifestFile is the file of a docker save archive that lists its images
// (Docker image specification v1.2, "Combined Image JSON + Filesystem Changeset
// Format").
const dockerManifestFile = "manifest.json"

// savedImage is one image of manifest.json.
type savedImage struct {
	Config   string       `json:"Config"` // Config and Layers are names of files in the archive
	RepoTags list[string] `json:"RepoTags"`
	Layers   list[string] `json:"Layers"`
}

func resolveDockerArchive(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	a, err := openArchive(ctx, s, o)
	if err != nil {
		return nil, err
	}
	img, err := a.dockerImage(s, want, o)
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return img, nil
}

// dockerImage returns the image that s.tag names. Close of the image closes the
// archive.
func (a *archive) dockerImage(s source, want platform, o Options) (*Image, error) {
	data, err := readEntry(a, dockerManifestFile, o.maxJSON())
	if err != nil {
		return nil, fmt.Errorf("not a docker save archive: %w", err)
	}
	var saved list[savedImage]
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("parse %s: %s", dockerManifestFile, printable(err.Error()))
	}
	images, err := selectSaved(saved, s.tag)
	if err != nil {
		return nil, err
	}
	chosen, img, diffIDs, err := a.chooseSaved(images, want, o)
	if err != nil {
		return nil, err
	}
	img.close = a.close
	if img.Name = chosen.name(s.tag); img.Name == "" {
		img.Name = fileName(s.path, "")
	}
	for i, name := range chosen.Layers {
		layer, err := a.savedLayer(name, diffIDs[i])
		if err != nil {
			return nil, err
		}
		img.Layers = append(img.Layers, layer)
	}
	return img, nil
}

func (a *archive) savedConfig(s *savedImage, want platform, o Options) (*Image, []digest.DiffID, error) {
	raw, err := readEntry(a, s.Config, o.maxJSON())
	if err != nil {
		return nil, nil, err
	}
	id := digest.FromBytes(raw)
	if named := digestIn(s.Config); named != "" && named != id {
		return nil, nil, fmt.Errorf("%s: %w", printable(s.Config), &mismatchError{id})
	}
	config, err := parseConfig(raw)
	if err != nil {
		return nil, nil, err
	}
	if len(s.Layers) > o.maxLayers() {
		return nil, nil, tooManyLayers(len(s.Layers), o.maxLayers())
	}
	if len(config.diffIDs) != len(s.Layers) {
		return nil, nil, fmt.Errorf("manifest has %d layers, its configuration %d", len(s.Layers), len(config.diffIDs))
	}
	p, err := (&resolver{want: want}).checkPlatform(config, nil)
	if err != nil {
		return nil, nil, err
	}
	return &Image{Digest: id, Platform: p.String(), RawConfig: raw, Config: config.file, Warnings: config.warnings}, config.diffIDs, nil
}

// digestIn returns the digest in the name of an archive's file, which has the
// form HEX.json or blobs/sha256/HEX. It returns "" for other names.
func digestIn(name string) digest.Digest {
	hex, ok := strings.CutPrefix(name, "blobs/sha256/")
	if !ok {
		hex, ok = strings.CutSuffix(name, ".json")
	}
	d, err := digest.ParseDigest("sha256:" + hex)
	if !ok || err != nil {
		return ""
	}
	return d
}

// savedLayer returns a layer that is read in place. If its name has no digest,
// the layer's only checksum is the diffID, which package layer checks.
func (a *archive) savedLayer(name string, diffID digest.DiffID) (Layer, error) {
	e, err := a.find(name)
	if err != nil {
		return Layer{}, &LayerError{DiffID: diffID, Err: err}
	}
	want := blob{digestIn(name), e.size}
	return Layer{want.digest, diffID, e.size, func(ctx context.Context) (io.ReadCloser, error) {
		r := io.NopCloser(withContext(ctx, io.NewSectionReader(a.at, e.offset, e.size)))
		if want.digest == "" {
			return r, nil
		}
		return verify(r, want), nil
	}}, nil
}

// selectSaved returns the images that tag names. There are several if the archive
// has the image for several platforms. Without a tag it returns all images, or an
// error if they have different tags.
func selectSaved(saved []savedImage, tag string) ([]*savedImage, error) {
	found := taggedSaved(saved, tag)
	different := slices.ContainsFunc(found, func(s *savedImage) bool { return !slices.Equal(s.RepoTags, found[0].RepoTags) })
	switch {
	case len(saved) == 0:
		return nil, errors.New("archive has no images")
	case len(found) == 0:
		return nil, fmt.Errorf("%w: archive has no image %s (%s)", ErrNoImage, printable(tag), availableSaved(saved))
	case tag == "" && different:
		return nil, severalSaved(saved)
	}
	return found, nil
}

// taggedSaved returns the images that tag names: by a tag, by a short form of a tag,
// or by the ID. A tag as it is written has priority over the same one in localhost/.
func taggedSaved(saved []savedImage, tag string) (found []*savedImage) {
	for _, name := range append([]string{tag}, CanonicalNames(tag)...) {
		for i := range saved {
			s := &saved[i]
			isID := tag != "" && string(digestIn(s.Config)) == tag
			if tag == "" || isID || slices.ContainsFunc(s.RepoTags, func(t string) bool { return t == name || CanonicalName(t) == name }) {
				found = append(found, s)
			}
		}
		if len(found) > 0 {
			break
		}
	}
	return found
}

func severalSaved(saved []savedImage) error {
	return fmt.Errorf("archive has several images: append a colon and the tag of one (%s)", availableSaved(saved))
}

func availableSaved(saved []savedImage) string {
	var tags []string
	for _, s := range saved {
		tags = append(tags, s.RepoTags...)
	}
	if len(tags) == 0 {
		return "its images have no tags"
	}
	return "available: " + printable(strings.Join(tags[:min(len(tags), 20)], ", "))
}

// chooseSaved returns the image for the wanted platform. It returns an error if
// there are several.
func (a *archive) chooseSaved(images []*savedImage, want platform, o Options) (chosen *savedImage, img *Image, diffIDs []digest.DiffID, err error) {
	if len(images) > maxDocuments {
		return nil, nil, nil, fmt.Errorf("archive has more than %d images of one tag", maxDocuments)
	}
	other := &PlatformError{Want: want.String()}
	for _, s := range images {
		found, ids, err := a.savedConfig(s, want, o)
		if e, ok := errors.AsType[*PlatformError](err); ok {
			other.Have = append(other.Have, e.Have...)
			continue
		}
		if err != nil {
			return nil, nil, nil, err
		}
		if img != nil && img.Digest != found.Digest {
			return nil, nil, nil, fmt.Errorf("archive has several images for %s: append a colon and the ID of one (available: %s, %s)",
				want, img.Digest, found.Digest)
		}
		chosen, img, diffIDs = s, found, ids
	}
	if img == nil {
		return nil, nil, nil, other
	}
	return chosen, img, diffIDs, nil
}

// name returns the canonical form of the image's tag that tag names, or of its
// first tag if tag is "" or an ID. It returns "" if there is none.
func (s *savedImage) name(tag string) string {
	if _, err := digest.ParseDigest(tag); err != nil && tag != "" {
		if i := slices.IndexFunc(s.RepoTags, func(t string) bool { return isSameName(tag, t) }); i >= 0 {
			return CanonicalName(s.RepoTags[i])
		}
		return CanonicalName(tag)
	}
	if len(s.RepoTags) > 0 {
		return CanonicalName(s.RepoTags[0])
	}
	return ""
}
