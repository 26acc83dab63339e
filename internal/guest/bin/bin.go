// Package bin holds the guest program, cmd/banger-guest, as it was built
// for the same architecture just before banger was. It neither builds nor
// looks for one: a banger that was built without it says so.
package bin

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// MaxSize is the most bytes that the guest program may have: every machine
// has it in memory. scripts/guest-size holds a build to it.
const MaxSize = 8 << 20

// ErrNotBuilt says that banger was built without the guest program.
var ErrNotBuilt = errors.New("this banger was built without the guest program: build it with make build")

//go:embed all:dist
var dist embed.FS

// Program returns the guest program, a static executable.
func Program() ([]byte, error) { return program(dist) }

func program(files fs.FS) ([]byte, error) {
	b, err := fs.ReadFile(files, "dist/banger-guest")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotBuilt
	}
	if err != nil {
		return nil, fmt.Errorf("read guest program: %w", err)
	}
	return b, nil
}
