package pull

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/base/digest"
)

// names returns the name of a layout's entry. Tools write it to one of two
// annotations, or a full name to the one and its tag to the other. If the two
// disagree, names returns both.
func (d descriptor) names() []string {
	full, ref := d.Annotations[annotationContainerd], d.Annotations[annotationName]
	switch {
	case full == "" && ref == "":
		return nil
	case full == "":
		return []string{ref}
	case ref == "" || ref == full || isTagOf(ref, full) || isSameName(ref, full):
		return []string{full}
	}
	return []string{full, ref}
}

// isTagOf reports whether tag is the tag of the image name full.
func isTagOf(tag, full string) bool {
	return !isQualified(tag) && strings.HasSuffix(CanonicalName(full), ":"+tag)
}

// isQualified reports whether name is more than a tag.
func isQualified(name string) bool { return strings.ContainsAny(name, "/:@") }

// isSameName reports whether two names, one of which may be short, name the same
// image.
func isSameName(short, full string) bool {
	canonical := CanonicalName(full)
	return canonical != "" && slices.Contains(CanonicalNames(short), canonical)
}

// shown returns the name of a layout's entry for a list, or its digest.
func (d descriptor) shown() string {
	if names := d.names(); len(names) > 0 {
		return printable(strings.Join(names, " or "))
	}
	return "@" + printable(d.Digest)
}

// tagged returns the entries that tag names: by name, by a short form of the name,
// or by digest. A name as it is written has priority over the same name in
// localhost/.
func tagged(entries []descriptor, tag string) []descriptor {
	wanted := []string{tag}
	if isQualified(tag) {
		wanted = append(wanted, CanonicalNames(tag)...)
	}
	for _, name := range wanted {
		var found []descriptor
		for _, d := range entries {
			if d.isNamed(name) || d.Digest == tag || "@"+d.Digest == tag {
				found = append(found, d)
			}
		}
		if len(found) > 0 {
			return found
		}
	}
	return nil
}

// isNamed reports whether name is one of the annotations of d, or the canonical
// form of one.
func (d descriptor) isNamed(name string) bool {
	return slices.ContainsFunc([]string{d.Annotations[annotationName], d.Annotations[annotationContainerd]}, func(n string) bool {
		return n != "" && (n == name || CanonicalName(n) == name)
	})
}

// imageName returns the image's name for the store, or "" if the layout gives none
// but a tag. It returns an error if the layout gives two names and tag is neither.
func (d descriptor) imageName(tag string) (string, error) {
	names := d.names()
	if len(names) < 2 {
		return strings.Join(names, ""), nil
	}
	for _, n := range names {
		if n == tag || isQualified(tag) && isSameName(tag, n) {
			return n, nil
		}
	}
	return "", fmt.Errorf("layout gives the image two names, %s and %s: choose one with --name", printable(names[0]), printable(names[1]))
}

// selectEntries returns the entries of a layout's index that match tag. It
// returns an error if they have several names. Without a tag all entries match.
func selectEntries(all []descriptor, tag string) (entries []descriptor, err error) {
	images := slices.DeleteFunc(slices.Clone(all), descriptor.isAttestation)
	entries = images
	if tag != "" {
		entries = tagged(images, tag)
	}
	named := map[string]bool{}
	for _, d := range entries {
		if len(d.names()) > 0 {
			named[d.shown()] = true
		}
	}
	switch {
	case len(images) == 0:
		return nil, errors.New("layout has no images")
	case len(entries) == 0:
		return nil, fmt.Errorf("%w: layout has no image %s (%s)", ErrNoImage, printable(tag), available(images))
	case len(named) > 1:
		return nil, severalImages(entries)
	}
	return entries, nil
}

func severalImages(entries []descriptor) error {
	return fmt.Errorf("layout has several images: append a colon and the name of one (%s)", available(entries))
}

// available lists at most 20 entries.
func available(entries []descriptor) string {
	var names []string
	for _, d := range entries {
		if n := d.shown(); !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return "available: " + strings.Join(names[:min(len(names), 20)], ", ")
}

// choose resolves the entries of a layout, which have at most one name, and
// returns the one that fits the platform best. An index of one tag may list an
// entry for each platform. If two images fit equally well, choose returns an error.
func (r *resolver) choose(ctx context.Context, entries []descriptor) (*resolved, descriptor, error) {
	var best *resolved
	var rivals []descriptor
	seen := map[digest.Digest]bool{}
	bestFit := 0
	for _, e := range entries {
		found, err := r.fromIndex(ctx, []descriptor{e}, 1)
		if err != nil {
			return nil, e, err
		}
		if found == nil || seen[found.manifest.digest] {
			continue
		}
		seen[found.manifest.digest] = true
		p := e.platform()
		if p == nil {
			p = &found.platform
		}
		fit := max(r.want.fits(*p), 0)
		if best == nil || fit < bestFit {
			best, bestFit, rivals = found, fit, nil
		}
		if fit == bestFit {
			rivals = append(rivals, e)
		}
	}
	switch {
	case best == nil:
		return nil, descriptor{}, r.noImage()
	case len(rivals) > 1:
		return nil, descriptor{}, severalImages(byDigest(rivals))
	}
	return best, rivals[0], nil
}

// byDigest returns the entries without their common name, so that a list shows
// their digests.
func byDigest(entries []descriptor) []descriptor {
	out := slices.Clone(entries)
	for i := range out {
		out[i].Annotations = nil
	}
	return out
}
