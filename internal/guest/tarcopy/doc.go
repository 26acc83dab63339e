// Package tarcopy carries files between a file system and a tar stream: Pack
// writes a file or a folder as a stream, Extract puts a stream's entries into
// a folder, and Lookup says what a path is. The guest program and the host
// share it, so that both sides of a copy agree on what an entry means.
//
// A stream is hostile unless Options say otherwise. None of its names ever
// means anything outside the folder, no symlink is followed on the way to
// one, and nobody gets rights by it: owners, setuid bits, attributes and
// devices are left out, and told of where that was not asked for.
//
// How a copy's source and destination go together is package transfer's.
package tarcopy

import (
	"context"
	"io"
	"strconv"
)

// Limits of what is taken from a stream. What the headers of one entry may
// have in PAX records, archive/tar bounds to 1 MiB.
const (
	maxName    = 4096      // bytes of a path: PATH_MAX
	maxElement = 255       // bytes of a part of it: NAME_MAX
	maxEntries = 4 << 20   // of a stream
	maxPending = 256 << 20 // bytes that folders' names and attributes take until the end
)

// copyBuffer is how much of a file's content is moved at a time.
const copyBuffer = 128 << 10

// The PAX records that hold extended attributes: star(5), as GNU tar and
// archive/tar have them.
const xattrPrefix = "SCHILY.xattr."

// reader reads until ctx ends.
func reader(ctx context.Context, r io.Reader) io.Reader {
	return readFunc(func(p []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return r.Read(p)
	})
}

type readFunc func(p []byte) (int, error)

func (f readFunc) Read(p []byte) (int, error) { return f(p) }

// writeFunc hides every other method of a writer, so that io.CopyBuffer uses
// its buffer.
type writeFunc func(p []byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// quote shows a name that a stranger chose, however long.
func quote(name string) string {
	const enough = 200
	if len(name) > enough {
		return strconv.Quote(name[:enough]) + "…"
	}
	return strconv.Quote(name)
}
