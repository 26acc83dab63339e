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
	chosen, err := selectSaved(saved, s.tag)
	if err != nil {
		return nil, err
	}
	img, diffIDs, err := a.savedConfig(chosen, want, o)
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

// selectSaved returns the image that tag names. Without a tag it returns the
// only image, or an error if there are several.
func selectSaved(saved []savedImage, tag string) (*savedImage, error) {
	if tag == "" && len(saved) == 1 {
		return &saved[0], nil
	}
	var tags []string
	for i := range saved {
		if tag != "" && saved[i].matches(tag) {
			return &saved[i], nil
		}
		tags = append(tags, saved[i].RepoTags...)
	}
	available := "its images have no tags"
	if len(tags) > 0 {
		available = "available: " + printable(strings.Join(tags[:min(len(tags), 20)], ", "))
	}
	switch {
	case len(saved) == 0:
		return nil, errors.New("archive has no images")
	case tag == "":
		return nil, fmt.Errorf("archive has several images: append a colon and the tag of one (%s)", available)
	}
	return nil, fmt.Errorf("%w: archive has no image %s (%s)", ErrNotFound, printable(tag), available)
}

// matches reports whether tag is one of the image's tags or its ID.
func (s *savedImage) matches(tag string) bool {
	if slices.Contains(s.RepoTags, tag) || digestIn(s.Config) != "" && string(digestIn(s.Config)) == tag {
		return true
	}
	full := CanonicalName(tag)
	return full != "" && slices.ContainsFunc(s.RepoTags, func(t string) bool { return CanonicalName(t) == full })
}

// name returns the canonical form of tag, or of the image's first tag if tag is
// "" or an ID. It returns "" if there is none.
func (s *savedImage) name(tag string) string {
	if _, err := digest.ParseDigest(tag); err != nil && tag != "" {
		return CanonicalName(tag)
	}
	if len(s.RepoTags) > 0 {
		return CanonicalName(s.RepoTags[0])
	}
	return ""
}
