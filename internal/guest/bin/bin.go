// Package bin embeds the guest program, cmd/banger-guest, which the build makes
// for the same architecture just before it builds banger. The package neither
// builds the program nor searches for it. If banger was built without it,
// Program returns ErrNotBuilt.
package bin

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
)

// MaxSize is the maximum size of the guest program in bytes. Each machine holds
// it in memory. scripts/guest-size enforces the limit in the build.
const MaxSize = 8 << 20

// ErrNotBuilt is returned if banger was built without the guest program.
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
