package write_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/tree"
)

// TestDirectoryInManyPieces writes a directory that needs an extent tree. The data
// ends near the end of the first group, so the blocks of the directory are in the
// gaps between the tables, behind the data and in the next group.
func TestDirectoryInManyPieces(t *testing.T) {
	img := ext4test.NewImage(t)
	img.File("data", strings.Repeat("d", (groupBlocks-firstData-100)*tree.BlockSize))
	const names = 100_000
	pad := strings.Repeat("x", 240)
	for i := range names {
		if i%60_000 == 0 {
			img.File(fmt.Sprintf("f%d", i/60_000), "x")
		}
		img.Add(tree.Entry{Name: fmt.Sprintf("d/%08d%s", i, pad), Type: tree.HardLink, Linkname: fmt.Sprintf("f%d", i/60_000)})
	}
	o := ext4test.Options()
	o.Direct = 0
	fs := ext4test.Open(t, img.Write(o))
	dir := lookup(t, fs, "d")
	blocks, err := ext4test.Blocks(fs, dir)
	if err != nil {
		t.Fatal(err)
	}
	pieces := 1
	for i := 1; i < len(blocks); i++ {
		if blocks[i] != blocks[i-1]+tree.BlockSize {
			pieces++
		}
	}
	if pieces <= 4 {
		t.Errorf("%d blocks in %d pieces, want more than 4", len(blocks), pieces)
	}
}

const (
	firstData   = 257 + 16 + 16 + 16*512 // the first block for data on a disk of any size
	groupBlocks = 32768
)
