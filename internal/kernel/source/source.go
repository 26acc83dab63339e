package source

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/banger-vm/banger/internal/kernel"
)

// The kinds of source.
const (
	kindHost   = "host"
	kindApt    = "apt"
	kindDeb    = "deb"
	kindBundle = "bundle"
	kindFiles  = "files" // for Files; no source has this prefix
	kindImage  = "image" // any source of package pull except kindLayout
	kindLayout = "oci"
)

// imageKinds are the prefixes of package pull's sources.
var imageKinds = strings.Fields("docker oci oci-archive docker-archive docker-daemon tar")

// A source is a parsed SOURCE argument.
type source struct {
	text string // as the user gives it
	kind string
	rest string // after the colon; the whole text if kind is kindImage or kindLayout
}

// parseSource parses a source in one of the forms that package cli documents.
// It refuses an image reference without a prefix, because that could also be a
// name of the catalog.
func parseSource(text string) (source, error) {
	kind, rest, colon := strings.Cut(text, ":")
	s := source{text: text, kind: kind, rest: rest}
	switch kind {
	case kindHost:
		if colon && !kernel.IsRelease(rest) {
			return s, fmt.Errorf("source %s: not a kernel release", text)
		}
		return s, nil
	case kindApt:
		name, version, pinned := strings.Cut(rest, "=")
		name, arch, _ := strings.Cut(name, ":")
		if !isPackageName(name) || arch != "" && !isPackageName(arch) || pinned && !isPackageVersion(version) {
			return s, fmt.Errorf("source %s: want apt:PACKAGE[:ARCH][=VERSION]", text)
		}
		return s, nil
	case kindDeb, kindBundle:
		if rest == "" {
			return s, fmt.Errorf("source %s: no path given", text)
		}
		return s, nil
	}
	if !colon || !slices.Contains(imageKinds, kind) {
		return s, &SourceError{text}
	}
	s.rest = text
	if kind != kindLayout {
		s.kind = kindImage
	}
	return s, nil
}

// A SourceError reports a text that is neither a name of the catalog nor a
// source.
type SourceError struct{ Text string }

func (e *SourceError) Error() string {
	return fmt.Sprintf("%q is neither in the catalog nor a source", e.Text)
}

// files returns the paths on this host that the source names.
func (s source) files() []string {
	switch s.kind {
	case kindDeb:
		return strings.Split(s.rest, ",")
	case kindBundle:
		return []string{s.rest}
	case kindLayout, kindImage:
		kind, rest, _ := strings.Cut(s.rest, ":")
		switch kind {
		case "tar":
			return []string{rest}
		case kindLayout, "oci-archive", "docker-archive":
			path, _, _ := strings.Cut(rest, ":")
			return []string{path}
		}
	}
	return nil
}

// Files are the separate files of a kernel.
type Files struct {
	Kernel  string // bzImage or ELF
	Config  string // "" if there is none
	Modules string // the folder of the modules, or one with lib/modules/RELEASE; "" if there are none
}

func (f Files) check() error {
	if f.Kernel == "" && (f.Config != "" || f.Modules != "") {
		return errors.New("a configuration or modules without a kernel")
	}
	return nil
}
