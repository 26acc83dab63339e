// Package digest has two kinds of SHA-256 that must not be mixed: of bytes as
// they are stored, and of a layer's tar before compression. The textual form
// is that of the OCI image specification, descriptor.md, "Digests". Other
// algorithms are refused.
package digest

import (
	"fmt"
	"strings"
)

const (
	prefix   = "sha256:"
	hexLen   = 64
	shortLen = 12
)

// Digest identifies bytes as they are stored or sent, such as a compressed
// layer: "sha256:" and 64 lowercase hexadecimal digits.
type Digest string

// DiffID identifies the uncompressed tar of a layer, in the same form.
type DiffID string

// ParseDigest checks s. It returns "" with an error.
func ParseDigest(s string) (Digest, error) { return parse[Digest](s) }

// ParseDiffID checks s. It returns "" with an error.
func ParseDiffID(s string) (DiffID, error) { return parse[DiffID](s) }

// Hex returns the hexadecimal digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), prefix) }

// Hex returns the hexadecimal digits.
func (d DiffID) Hex() string { return strings.TrimPrefix(string(d), prefix) }

// Short returns the first 12 hexadecimal digits, for people.
func (d Digest) Short() string { return short(d.Hex()) }

// Short returns the first 12 hexadecimal digits, for people.
func (d DiffID) Short() string { return short(d.Hex()) }

func short(hex string) string { return hex[:min(len(hex), shortLen)] }

func parse[T ~string](s string) (T, error) {
	hex, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return "", fmt.Errorf("digest %q: not sha256", shown(s))
	}
	if len(hex) != hexLen || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", fmt.Errorf("digest %q: want 64 lowercase hexadecimal digits", shown(s))
	}
	return T(s), nil
}

// shown keeps foreign text that is no digest from filling a message.
func shown(s string) string {
	const limit = 2 * hexLen
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
