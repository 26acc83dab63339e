package tree

import "strings"

const chunkLen = 8192

// chunks is a growing array whose elements never move. It neither copies its
// elements nor doubles its memory when it grows.
type chunks[T any] struct {
	parts []*[chunkLen]T
	n     int
}

func (c *chunks[T]) at(i uint32) *T { return &c.parts[i/chunkLen][i%chunkLen] }

// push appends a zero element and returns its index.
func (c *chunks[T]) push() uint32 {
	if c.n%chunkLen == 0 {
		c.parts = append(c.parts, new([chunkLen]T))
	}
	c.n++
	return uint32(c.n - 1)
}

const (
	arenaChunk = 1 << 20
	maxArena   = 1 << 30 // bytes of names and symlink targets in one tree
)

// arena stores strings one after the other and returns 32-bit references.
type arena struct {
	parts []*strings.Builder
}

// add stores s and returns its reference, or false if the arena is full.
func (a *arena) add(s string) (uint32, bool) {
	if len(a.parts) == 0 || a.last().Len()+len(s) > arenaChunk {
		if len(a.parts) == maxArena/arenaChunk {
			return 0, false
		}
		b := new(strings.Builder)
		b.Grow(arenaChunk)
		a.parts = append(a.parts, b)
	}
	b := a.last()
	off := b.Len()
	b.WriteString(s)
	return uint32((len(a.parts)-1)*arenaChunk + off), true
}

func (a *arena) last() *strings.Builder { return a.parts[len(a.parts)-1] }

// get returns the n bytes at ref without a copy. The string stays valid,
// because a chunk never grows beyond its first allocation.
func (a *arena) get(ref uint32, n int) string {
	off := int(ref % arenaChunk)
	return a.parts[ref/arenaChunk].String()[off : off+n]
}
