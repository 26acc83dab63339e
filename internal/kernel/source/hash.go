package source

import (
	"crypto/sha256"
	"hash"

	"github.com/banger-vm/banger/internal/base/digest"
)

// A hashWriter hashes and counts the bytes that are written to it.
type hashWriter struct {
	hash hash.Hash
	size int64
}

func newHashWriter() *hashWriter { return &hashWriter{hash: sha256.New()} }

func (w *hashWriter) Write(p []byte) (int, error) {
	w.size += int64(len(p))
	return w.hash.Write(p)
}

func (w *hashWriter) digest() digest.Digest { return digest.FromHash(w.hash) }
