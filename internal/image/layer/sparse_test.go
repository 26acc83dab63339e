package layer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// needTool skips the test if a tool is missing. In CI the test fails instead.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err == nil {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is missing", name)
	}
	t.Skipf("%s is missing", name)
}

// writeSparse writes a sparse file of random bytes, none of them zero, in the
// given pieces.
func writeSparse(t *testing.T, name string, size int64, pieces []tree.Run) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(3, 4))
	for _, p := range pieces {
		b := make([]byte, p.Length)
		for i := range b {
			b[i] = byte(1 + random.IntN(255))
		}
		if _, err := f.WriteAt(b, p.Offset); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

// TestF8SparseFilesOfGNUTar reads archives that GNU tar itself wrote in its
// four sparse formats.
func TestF8SparseFilesOfGNUTar(t *testing.T) {
	needTool(t, "tar")
	dir := t.TempDir()
	const block = tree.BlockSize
	var many []tree.Run // more than the header and its first extension hold
	for i := range int64(60) {
		many = append(many, tree.Run{Offset: i * 8 * block, Length: block})
	}
	files := []struct {
		name   string
		size   int64
		pieces []tree.Run
	}{
		{"all hole", 100 * block, []tree.Run{}},
		{"begin", 100 * block, []tree.Run{{Length: 3 * block}}},
		{"end", 100*block + 7, []tree.Run{{Offset: 99 * block, Length: block + 7}}},
		{"middle", 100 * block, []tree.Run{{Offset: 5 * block, Length: block}, {Offset: 50 * block, Length: 4 * block}}},
		{"many", 500 * block, many},
		{"tebibyte", 1 << 40, []tree.Run{{Offset: 1 << 39, Length: block}, {Offset: 1<<40 - block, Length: block}}},
		{"dense", 3 * block, nil},
	}
	var names []string
	for _, f := range files {
		pieces := f.pieces
		if pieces == nil {
			pieces = []tree.Run{{Length: f.size}}
		}
		writeSparse(t, filepath.Join(dir, f.name), f.size, pieces)
		names = append(names, f.name)
	}
	for _, format := range [][]string{
		{"--format=gnu"}, {"--format=posix", "--sparse-version=0.0"},
		{"--format=posix", "--sparse-version=0.1"}, {"--format=posix", "--sparse-version=1.0"},
	} {
		t.Run(fmt.Sprint(format), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "tar", append(append(format, "-S", "-C", dir, "-cf", "-"), names...)...)
			plain, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			u, err := unpack(t, plain, Options{})
			if err != nil {
				t.Fatal(err)
			}
			for i, f := range files {
				e := u.entries[i]
				if e.Name != f.name || e.Size != f.size || !slices.Equal(e.Body.Runs, f.pieces) || (e.Body.Runs == nil) != (f.pieces == nil) {
					t.Errorf("%s is %q of %d bytes with %v, want %d bytes with %v", f.name, e.Name, e.Size, e.Body.Runs, f.size, f.pieces)
				}
				sameData(t, filepath.Join(dir, f.name), &e, u.spool.data)
			}
		})
	}
}

func sameData(t *testing.T, name string, e *tree.Entry, spool []byte) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := e.Body.Offset
	for _, r := range e.Body.Runs {
		want := make([]byte, r.Length)
		if _, err := f.ReadAt(want, r.Offset); err != nil && !isEOF(err) {
			t.Fatal(err)
		}
		if !bytes.Equal(spool[at:at+r.Length], want) {
			t.Errorf("%s: data at %d differs", name, r.Offset)
		}
		at += blocks(r.Length)
	}
}

// TestSparsePiecesWithinBlocks reads a sparse map whose pieces are not whole
// blocks.
func TestSparsePiecesWithinBlocks(t *testing.T) {
	e, u := unpackOne(t, sparseFile(10, 20, 4090, 10, 20000))
	want := make([]byte, 20000)
	copy(want[10:], bytes.Repeat([]byte("s"), 20))
	copy(want[4090:], bytes.Repeat([]byte("s"), 10))
	if !bytes.Equal(u.spool.file(&e), want) || !slices.Equal(e.Body.Runs, []tree.Run{{Length: 8192}}) {
		t.Errorf("runs are %v", e.Body.Runs)
	}
}

// TestFileWithMoreThanMaxRuns checks that a file with too many holes stores
// the zeros after its last run as data.
func TestFileWithMoreThanMaxRuns(t *testing.T) {
	w := bodyWriter{w: discardAt{}}
	size := int64(2*maxRuns+10) * tree.BlockSize
	w.begin(size)
	data := bytes.Repeat([]byte{1}, tree.BlockSize)
	for range maxRuns + 5 {
		for _, p := range [][]byte{data, zeroBlock[:]} {
			if err := w.data(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	body, err := w.end()
	if err != nil {
		t.Fatal(err)
	}
	want := tree.Run{Offset: int64(2*maxRuns-2) * tree.BlockSize, Length: 12 * tree.BlockSize}
	if len(body.Runs) != maxRuns || body.Runs[maxRuns-1] != want {
		t.Errorf("%d runs, the last is %v, want %v", len(body.Runs), body.Runs[len(body.Runs)-1], want)
	}
	if err := w.zeros(1 << 40); err == nil {
		t.Error("a hole of 1 TiB after the last run was accepted")
	}
}

// TestHugeHolesAreFree checks that 1000 holes of 8 TiB take no time and no
// space in the spool.
func TestHugeHolesAreFree(t *testing.T) {
	var plain []byte
	for range 1000 {
		plain = append(plain, sparseHeader(0, 0, 1<<43)...)
	}
	u, err := unpack(t, append(plain, make([]byte, 2*blockSize)...), Options{})
	if err != nil || len(u.entries) != 1000 || u.info.SpoolBytes != 0 || u.entries[999].Size != 1<<43 {
		t.Errorf("%d entries, %d bytes, %v", len(u.entries), u.info.SpoolBytes, err)
	}
}
