package e2fs_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

// noise is a spool of unlimited size that repeats its bytes.
type noise []byte

func (n noise) ReadAt(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		done += copy(p[done:], n[(off+int64(done))%int64(len(n)):])
	}
	return len(p), nil
}

// BenchmarkBuild builds a disk of 15,000 files and 600 MB, the size of a large
// server image.
func BenchmarkBuild(b *testing.B) {
	const files, size = 15000, 40 << 10
	m := tree.NewMerger(tree.Options{Created: created})
	if err := m.NextLayer(); err != nil {
		b.Fatal(err)
	}
	for i := range files {
		e := tree.Entry{Name: fmt.Sprintf("usr/lib/d%d/f%d", i/40, i), Type: tree.Regular, Mode: 0o644, UID: 1, Mtime: created, Size: size}
		e.Body.Offset = int64(i) * size
		if err := m.Add(&e); err != nil {
			b.Fatal(err)
		}
	}
	tree, spool := m.Tree(), make(noise, 4<<20)
	random := rand.NewChaCha8([32]byte{})
	if _, err := random.Read(spool); err != nil {
		b.Fatal(err)
	}
	o := e2fs.Options{ScratchDir: b.TempDir(), Created: created}
	b.SetBytes(files * size)
	n := 0
	for b.Loop() {
		n++
		disk := filepath.Join(b.TempDir(), fmt.Sprint(n))
		if _, err := e2fs.Build(b.Context(), tree, []io.ReaderAt{spool}, disk, o, nil); err != nil {
			b.Fatal(err)
		}
	}
}
