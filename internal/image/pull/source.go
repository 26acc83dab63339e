package pull

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/banger-vm/banger/internal/base/digest"
)

// The kinds of SOURCE. A source begins with its kind and a colon, except for
// registries, whose kind may be omitted.
const (
	kindRegistry      = "docker"
	kindLayout        = "oci"
	kindLayoutArchive = "oci-archive"
	kindDockerArchive = "docker-archive"
	kindDaemon        = "docker-daemon"
	kindTar           = "tar"
	kindSkopeoDir     = "dir"
)

// standardInput is the path of an archive that is read from Options.Stdin.
const standardInput = "-"

// maxSource bounds the length of a SOURCE in bytes.
const maxSource = 8192

type source struct {
	text string // as given
	kind string
	path string         // of an archive or layout
	tag  string         // the part after the path; for a daemon, its reference or image ID
	ref  name.Reference // of a registry
}

// errorPrefix returns the beginning of every error about the source.
func (s source) errorPrefix() string {
	if s.kind == kindRegistry {
		return "pulling " + strings.TrimPrefix(s.text, "docker://")
	}
	return "reading " + s.text
}

// parseSource parses the forms of SOURCE that package cli documents. Except for
// a plain tar and a folder of skopeo's, a path ends at its first colon.
func parseSource(text string) (source, error) {
	s := source{text: text, kind: kindRegistry}
	if len(text) > maxSource || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return s, errors.New("source is too long or has control characters")
	}
	kind, rest, _ := strings.Cut(text, ":")
	switch kind {
	case kindLayout, kindLayoutArchive, kindDockerArchive:
		s.kind = kind
		s.path, s.tag, _ = strings.Cut(rest, ":")
	case kindTar, kindSkopeoDir:
		s.kind, s.path = kind, rest
	case kindDaemon:
		s.kind, s.tag = kind, rest
		return s, checkDaemonReference(rest)
	default:
		if err := checkNotPath(text); err != nil {
			return s, err
		}
		var err error
		s.ref, err = parseReference(strings.TrimPrefix(text, "docker://"))
		return s, err
	}
	if s.path == "" {
		return s, errors.New("no path given")
	}
	return s, nil
}

func parseReference(text string) (name.Reference, error) {
	if scheme, _, ok := strings.Cut(text, "://"); ok {
		return nil, fmt.Errorf("a reference has no %s://", scheme)
	}
	ref, err := name.ParseReference(text, name.WeakValidation)
	if err != nil {
		return nil, fmt.Errorf("not an image reference: %s", printable(err.Error()))
	}
	if d, ok := ref.(name.Digest); ok {
		if _, err := digest.ParseDigest(d.DigestStr()); err != nil {
			return nil, err
		}
	}
	return ref, checkRepository(ref.Context())
}

// checkRepository returns an error if the registry or the repository does not
// match the grammar of the distribution project's reference package.
// name.ParseReference accepts more, but both parts become parts of a URL.
func checkRepository(repo name.Repository) error {
	hostname, port, hasPort := strings.Cut(repo.RegistryStr(), ":")
	if strings.HasPrefix(hostname, "[") {
		hostname, port, hasPort = strings.Cut(repo.RegistryStr(), "]")
		hostname = "v6" + strings.ReplaceAll(hostname[1:], ":", "") // url.Parse has checked the address
		if hasPort {
			port, hasPort = strings.CutPrefix(port, ":")
		}
	}
	if !isWords(strings.ToLower(hostname), ".-") || hasPort && (port == "" || strings.Trim(port, "0123456789") != "") {
		return fmt.Errorf("not an image reference: registry %q", printable(repo.RegistryStr()))
	}
	for part := range strings.SplitSeq(repo.RepositoryStr(), "/") {
		if !isWords(part, "._-") {
			return fmt.Errorf("not an image reference: repository %q", printable(repo.RepositoryStr()))
		}
	}
	return nil
}

// isWords reports whether s begins and ends with a lowercase letter or a digit,
// and consists of lowercase letters, digits and separators, without "..".
func isWords(s, separators string) bool {
	const alphanumeric = "abcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && strings.Trim(s, alphanumeric+separators) == "" &&
		strings.Trim(s, separators) == s && !strings.Contains(s, "..")
}

// checkDaemonReference returns an error if text is neither an image ID nor a
// reference.
func checkDaemonReference(text string) error {
	if _, err := digest.ParseDigest(text); err == nil {
		return nil
	}
	_, err := parseReference(text)
	return err
}

// RegistryHost returns the registry host of an image source, in the form that
// the configuration file uses. If the source names no host, it returns
// "docker.io". If the source is not a registry, it returns "".
func RegistryHost(text string) (string, error) {
	s, err := parseSource(text)
	if path, ok := errors.AsType[*PathError](err); ok {
		return "", path
	}
	if err != nil {
		return "", fmt.Errorf("source %s: %w", printable(text), err)
	}
	if s.kind != kindRegistry {
		return "", nil
	}
	return host(s.ref.Context()), nil
}

// dockerHub is the common name of the registry name.DefaultRegistry.
const dockerHub = "docker.io"

func host(repo name.Repository) string {
	if h := repo.RegistryStr(); h != name.DefaultRegistry {
		return h
	}
	return dockerHub
}

// AtDigest returns a source for the same repository with the digest d in place
// of the tag, because a tag may move to another image. It returns text
// unchanged if text is not a registry source.
func AtDigest(text string, d digest.Digest) string {
	s, err := parseSource(text)
	if err != nil || s.kind != kindRegistry {
		return text
	}
	return canonical(s.ref.Context().Digest(string(d)))
}

// CanonicalName returns the full form of an image name, with its registry and
// its tag: debian becomes docker.io/library/debian:latest. It returns "" if
// text is not an image name.
func CanonicalName(text string) string {
	ref, err := parseReference(text)
	if err != nil {
		return ""
	}
	return canonical(ref)
}

// CanonicalNames returns the canonical names that text may stand for: its full
// form and, if text names no registry, the image of that name in "localhost/",
// under which podman and buildah keep the images that they build.
func CanonicalNames(text string) []string {
	full := CanonicalName(text)
	if full == "" {
		return nil
	}
	names := []string{full}
	registry, _, _ := strings.Cut(text, "/")
	if strings.HasPrefix(full, dockerHub+"/") && registry != dockerHub && registry != name.DefaultRegistry {
		if local := CanonicalName("localhost/" + text); local != "" {
			names = append(names, local)
		}
	}
	return names
}

func canonical(ref name.Reference) string {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	repo := ref.Context()
	return host(repo) + "/" + repo.RepositoryStr() + separator + ref.Identifier()
}

// FamiliarName returns the short form of a canonical name, as docker prints it:
// docker.io/library/debian:12 becomes debian:12.
func FamiliarName(canonical string) string {
	rest, ok := strings.CutPrefix(canonical, dockerHub+"/")
	if !ok {
		return canonical
	}
	if short, ok := strings.CutPrefix(rest, "library/"); ok && !strings.Contains(short, "/") {
		return short
	}
	return rest
}

// fileName returns a canonical name for an image without a name of its own. The
// name consists of the base name of the image's path and of tag, if any.
func fileName(path, tag string) string {
	base := "stdin"
	if path != standardInput {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		base = strings.ToLower(filepath.Base(path))
		for _, end := range []string{".gz", ".tgz", ".zst", ".tar", ".oci"} {
			base = strings.TrimSuffix(base, end)
		}
	}
	base = strings.Trim(strings.Map(nameRune, base), "-._")
	if base == "" {
		base = "image"
	}
	for _, s := range []string{base + ":" + tag, base} {
		if n := CanonicalName(s); n != "" {
			return n
		}
	}
	return CanonicalName("image")
}

func nameRune(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_' {
		return r
	}
	return '-'
}
