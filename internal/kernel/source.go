package kernel

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of source. Those of images are package pull's.
const (
	kindHost   = "host"
	kindApt    = "apt"
	kindDeb    = "deb"
	kindBundle = "bundle"
	kindFiles  = "files" // never written; see Files
	kindImage  = "image"
	kindLayout = "oci"
)

// source is where a kernel comes from.
type source struct {
	text string // as given
	kind string
	rest string // behind the colon; all of it for an image
}

// imageKinds are the prefixes of package pull's sources.
var imageKinds = strings.Fields("docker oci oci-archive docker-archive docker-daemon tar")

// parseSource reads the forms that package cli documents. A bare image
// reference is none of them: it would look like a name of the catalog.
func parseSource(text string) (source, error) {
	kind, rest, colon := strings.Cut(text, ":")
	s := source{text: text, kind: kind, rest: rest}
	switch kind {
	case kindHost:
		if colon && !IsRelease(rest) {
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
	for _, k := range imageKinds {
		if kind == k && colon {
			s.rest = text
			s.kind = kindImage
			if k == kindLayout {
				s.kind = kindLayout
			}
			return s, nil
		}
	}
	return s, &SourceError{text}
}

// A SourceError says that a text is neither a name of the catalog nor a
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

// Files are the loose files of a kernel.
type Files struct {
	Kernel  string // bzImage or ELF
	Config  string // "" for none
	Modules string // folder of the modules, or one that has lib/modules/RELEASE; "" for none
}

func (f Files) check() error {
	if f.Kernel == "" && (f.Config != "" || f.Modules != "") {
		return errors.New("a configuration or modules without a kernel")
	}
	return nil
}
