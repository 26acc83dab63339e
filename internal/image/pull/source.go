package pull

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/banger-vm/banger/internal/base/digest"
)

// The kinds of SOURCE. All but a registry's are written before a colon.
const (
	kindRegistry      = "docker"
	kindLayout        = "oci"
	kindLayoutArchive = "oci-archive"
	kindDockerArchive = "docker-archive"
	kindDaemon        = "docker-daemon"
	kindTar           = "tar"
)

// standardInput as the path of an archive means Options.Stdin.
const standardInput = "-"

// maxSource bounds the length of a SOURCE in bytes.
const maxSource = 8192

type source struct {
	text string // as given
	kind string
	path string         // of an archive or layout
	tag  string         // after the path, or what the daemon is asked for
	ref  name.Reference // of a registry
}

// what begins the errors about a source.
func (s source) what() string {
	if s.kind == kindRegistry {
		return "pulling " + strings.TrimPrefix(s.text, "docker://")
	}
	return "reading " + s.text
}

// parseSource reads the forms that package cli documents. A path ends at its
// first colon.
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
	case kindTar:
		s.kind, s.path = kind, rest
	case kindDaemon:
		s.kind, s.tag = kind, rest
		return s, checkDaemonReference(rest)
	default:
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
		return nil, fmt.Errorf("not an image reference: %s", clean(err.Error()))
	}
	if d, ok := ref.(name.Digest); ok {
		if _, err := digest.ParseDigest(d.DigestStr()); err != nil {
			return nil, err
		}
	}
	return ref, checkRepository(ref.Context())
}

// checkRepository holds to the grammar of the distribution project's
// reference package, where name.ParseReference is more generous: both parts
// become parts of a URL.
func checkRepository(repo name.Repository) error {
	hostname, port, hasPort := strings.Cut(repo.RegistryStr(), ":")
	if strings.HasPrefix(hostname, "[") {
		hostname, port, hasPort = strings.Cut(repo.RegistryStr(), "]")
		hostname = "v6" + strings.ReplaceAll(hostname[1:], ":", "") // which url.Parse has checked
		if hasPort {
			port, hasPort = strings.CutPrefix(port, ":")
		}
	}
	if !isWords(strings.ToLower(hostname), ".-") || hasPort && (port == "" || strings.Trim(port, "0123456789") != "") {
		return fmt.Errorf("not an image reference: registry %q", clean(repo.RegistryStr()))
	}
	for part := range strings.SplitSeq(repo.RepositoryStr(), "/") {
		if !isWords(part, "._-") {
			return fmt.Errorf("not an image reference: repository %q", clean(repo.RepositoryStr()))
		}
	}
	return nil
}

// isWords reports whether s begins and ends with a lowercase letter or digit
// and has only those and separators.
func isWords(s, separators string) bool {
	const alphanumeric = "abcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && strings.Trim(s, alphanumeric+separators) == "" &&
		strings.Trim(s, separators) == s && !strings.Contains(s, "..")
}

// checkDaemonReference takes a reference or an image's ID.
func checkDaemonReference(text string) error {
	if _, err := digest.ParseDigest(text); err == nil {
		return nil
	}
	_, err := parseReference(text)
	return err
}

// RegistryHost returns the host that the image source names, as the
// configuration calls it ("docker.io" where no host is given), or "" for a
// source that is not a registry.
func RegistryHost(text string) (string, error) {
	s, err := parseSource(text)
	if err != nil {
		return "", fmt.Errorf("source %s: %w", clean(text), err)
	}
	if s.kind != kindRegistry {
		return "", nil
	}
	return host(s.ref.Context()), nil
}

// dockerHub is how people call the registry that name.DefaultRegistry serves.
const dockerHub = "docker.io"

func host(repo name.Repository) string {
	if h := repo.RegistryStr(); h != name.DefaultRegistry {
		return h
	}
	return dockerHub
}

// AtDigest returns the source of the same image whatever its tag comes to
// mean. Sources that are not registries have no such form and stay as they are.
func AtDigest(text string, d digest.Digest) string {
	s, err := parseSource(text)
	if err != nil || s.kind != kindRegistry {
		return text
	}
	return canonical(s.ref.Context().Digest(string(d)))
}

// CanonicalName returns the full form of an image name, with its registry
// and tag, or "" when text is not one: debian becomes
// docker.io/library/debian:latest.
func CanonicalName(text string) string {
	ref, err := parseReference(text)
	if err != nil {
		return ""
	}
	return canonical(ref)
}

func canonical(ref name.Reference) string {
	separator := ":"
	if _, ok := ref.(name.Digest); ok {
		separator = "@"
	}
	repo := ref.Context()
	return host(repo) + "/" + repo.RepositoryStr() + separator + ref.Identifier()
}

// FamiliarName returns the short form of a canonical name, as docker shows
// it: docker.io/library/debian:12 becomes debian:12.
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

// fileName makes a canonical name for an image that brings none from the
// path that it was read from and the tag, if any.
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
