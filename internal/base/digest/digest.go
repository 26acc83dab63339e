// Package digest defines two types of SHA-256 digest that must not be mixed: one of
// bytes as they are stored, and one of a layer's tar before compression. Their text is
// that of the OCI image specification, descriptor.md, "Digests". The package accepts no
// other algorithm.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
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

// FromBytes returns the digest of data.
func FromBytes(data []byte) Digest {
	sum := sha256.Sum256(data)
	return fromSum(sum[:])
}

// FromHash returns the digest of the bytes that were written to h, a SHA-256.
func FromHash(h hash.Hash) Digest { return fromSum(h.Sum(nil)) }

func fromSum(sum []byte) Digest { return Digest(prefix + hex.EncodeToString(sum)) }

// ParseDigest returns s as a Digest, or "" and an error if s is not one.
func ParseDigest(s string) (Digest, error) { return parse[Digest](s) }

// ParseDiffID returns s as a DiffID, or "" and an error if s is not one.
func ParseDiffID(s string) (DiffID, error) { return parse[DiffID](s) }

// Hex returns the hexadecimal digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), prefix) }

// Hex returns the hexadecimal digits.
func (d DiffID) Hex() string { return strings.TrimPrefix(string(d), prefix) }

// Short returns the first 12 hexadecimal digits, for output to users.
func (d Digest) Short() string { return short(d.Hex()) }

// Short returns the first 12 hexadecimal digits, for output to users.
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

// shown cuts text of foreign origin to a length that fits into an error message.
func shown(s string) string {
	const limit = 2 * hexLen
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
