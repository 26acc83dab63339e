package verify_test

import (
	"bytes"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/image/verify"
)

// FuzzVerify verifies an empty disk against any bytes as a layer. Verify must
// end, and must not accept the disk.
func FuzzVerify(f *testing.F) {
	seeds := 0
	for _, compression := range []string{"none", "gzip", "zstd"} {
		for _, members := range baseline() {
			f.Add(archive(f, compression, members), uint8(tree.Rooted))
			f.Add(archive(f, compression, members), uint8(tree.Scoped))
			seeds += 2
		}
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, data []byte, paths uint8) {
		o := verify.Options{Paths: tree.Paths(paths % 3), MaxBytes: 1 << 22, MaxInodes: 1000}
		report, err := verify.Verify(t.Context(), stored([][]byte{data}), bytes.NewReader(nil), 0, o)
		if err == nil && report.OK() {
			t.Error("an empty disk was accepted")
		}
	})
}
