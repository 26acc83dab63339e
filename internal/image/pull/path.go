package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A PathError reports a source that is a path on this host without its kind.
type PathError struct {
	Path    string
	Sources []string // the sources that the user may mean, such as tar:PATH; may be empty
	Err     error    // of the registry that was asked for an image of this name; nil if none was
}

func (e *PathError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("%q is a path, not an image reference", printable(e.Path))
}

func (e *PathError) Unwrap() error { return e.Err }

// Hint returns advice for the user, or "".
func (e *PathError) Hint() string {
	if len(e.Sources) == 0 {
		return "a path needs its kind: oci:DIR, dir:DIR, oci-archive:FILE, docker-archive:FILE or tar:FILE"
	}
	return "a path needs its kind: write " + strings.Join(e.Sources, " or ")
}

// foreignKinds are kinds of sources of skopeo and other tools that banger does not
// read.
var foreignKinds = []string{"containers-storage", "ostree", "sif", "oci-dir", "docker-dir"}

// checkNotPath returns an error if text cannot be a reference, because it has the
// form of a path or a kind that is not known.
func checkNotPath(text string) error {
	kind, _, colon := strings.Cut(text, ":")
	if colon && slices.Contains(foreignKinds, kind) {
		return fmt.Errorf("sources of the kind %s: are not supported: copy the image with skopeo to oci:DIR or dir:DIR", kind)
	}
	first, _, _ := strings.Cut(text, "/")
	if text == first && text != "." && text != ".." || !slices.Contains([]string{"", ".", "..", "~"}, first) {
		return nil
	}
	return &PathError{Path: text, Sources: sourcesAt(text)}
}

// archiveEndings are ends of names that files have, but not repositories.
var archiveEndings = []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.xz"}

// checkNoArchive returns an error if text is the name of an archive that exists.
// The name is a valid reference, but hardly meant as one.
func checkNoArchive(text string) error {
	isArchive := slices.ContainsFunc(archiveEndings, func(end string) bool { return strings.HasSuffix(text, end) })
	if info, err := os.Stat(text); isArchive && err == nil && !info.IsDir() {
		return &PathError{Path: text, Sources: sourcesAt(text)}
	}
	return nil
}

// withPath adds to the error of a registry the sources that text may mean, if it is
// also the path of an image on this host.
func withPath(text string, err error) error {
	if sources := sourcesAt(text); len(sources) == 1 {
		return &PathError{Path: text, Sources: sources, Err: err}
	}
	return err
}

// sourcesAt returns the sources that a path may mean, by the content of the file or
// folder there. If there is none, it returns nil.
func sourcesAt(path string) []string {
	exists := func(name string) bool {
		_, err := os.Stat(filepath.Join(path, name))
		return err == nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil
	case info.IsDir() && exists(layoutFile):
		return []string{kindLayout + ":" + path}
	case info.IsDir() && exists(dockerManifestFile):
		return []string{kindSkopeoDir + ":" + path}
	case !info.Mode().IsRegular():
		return nil
	}
	kinds, err := archiveKinds(path, info.Size())
	if err != nil {
		return nil
	}
	for i := range kinds {
		kinds[i] += ":" + path
	}
	return kinds
}

// archiveKinds returns the kinds that the archive at path may be of. It does not
// decompress an archive.
func archiveKinds(path string, size int64) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, magicSize)
	if _, err := io.ReadFull(f, head); err != nil {
		return nil, err
	}
	plain, compressed, err := decompress(head, f, defaultMaxWindow)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	if compressed {
		return []string{kindTar, kindDockerArchive, kindLayoutArchive}, nil
	}
	a, err := newArchive(context.Background(), f, size, f.Close)
	if err != nil {
		return nil, err
	}
	for _, k := range []struct{ file, kind string }{{dockerManifestFile, kindDockerArchive}, {layoutFile, kindLayoutArchive}} {
		if _, err := a.find(k.file); err == nil {
			return []string{k.kind}, nil
		}
	}
	if len(a.entries) == 0 {
		return nil, errors.New("empty archive")
	}
	return []string{kindTar}, nil
}
