// Package tarcopy copies files between a file system and a tar stream. Pack
// writes a file or a folder as a stream, Extract creates a stream's entries in
// a folder, and Lookup returns the attributes of a path. The guest program and
// the host both use it, so that the two sides of a copy treat an entry alike.
//
// Extract treats a stream as hostile unless its options trust it. A name never
// refers to a file outside the folder, and no symlink on the way to a name is
// followed. The stream cannot grant privileges: owners, setuid bits, attributes
// and devices are left out. Extract reports the omissions that the caller did
// not request.
//
// Package copyrule implements docker's rules for the source and destination of
// a copy.
package tarcopy

import (
	"context"
	"io"
	"strconv"
)

// Limits of a stream. archive/tar itself limits the PAX records of an entry to
// 1 MiB.
const (
	maxName    = 4096      // bytes of a path (PATH_MAX)
	maxElement = 255       // bytes of an element of a path (NAME_MAX)
	maxEntries = 4 << 20   // entries of a stream
	maxPending = 256 << 20 // bytes of the folders' names and attributes that are kept until the end
)

// copyBuffer is the size of the buffer for file contents in bytes.
const copyBuffer = 128 << 10

// xattrPrefix begins the PAX records that hold extended attributes, as in
// star(5), GNU tar and archive/tar.
const xattrPrefix = "SCHILY.xattr."

// reader returns a reader of r that fails once ctx has ended.
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

// writeFunc hides all other methods of a writer, so that io.CopyBuffer uses its
// buffer.
type writeFunc func(p []byte) (int, error)

func (f writeFunc) Write(p []byte) (int, error) { return f(p) }

// quote quotes a name from a stream and shortens it if it is long.
func quote(name string) string {
	const enough = 200
	if len(name) > enough {
		return strconv.Quote(name[:enough]) + "…"
	}
	return strconv.Quote(name)
}
