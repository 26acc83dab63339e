package check_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/format"
	"github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// metadata returns the offsets of the bytes that a check reads.
func metadata(t *testing.T, disk []byte) []int64 {
	t.Helper()
	seen := make([]bool, len(disk))
	o := ext4test.Overlay{Disk: disk, At: -1, Note: func(off, n int64) {
		for i := off; i < off+n; i++ {
			seen[i] = true
		}
	}}
	for _, p := range o.Problems(t) {
		t.Fatal(p)
	}
	var list []int64
	for i, yes := range seen {
		if yes {
			list = append(list, int64(i))
		}
	}
	return list
}

// TestMetadataFindsFlippedBits inverts bits of the metadata of a disk, one at a
// time. The check must find each, except in bytes without a checksum: the rest of
// a block behind a superblock or the last descriptor, the unused entries of a hash
// tree and the targets of long symlinks.
func TestMetadataFindsFlippedBits(t *testing.T) {
	stock := func(size string) func(t *testing.T) string {
		return func(t *testing.T) string {
			disk := ext4test.StockDisk(t, ext4test.SourceFolder(t, 600), "24M", "-b", size, "-O", "ea_inode")
			ext4test.E2Tool(t, 1, "e2fsck", "-fyD", disk)
			return disk
		}
	}
	for _, row := range []struct {
		name string
		make func(t *testing.T) string
	}{
		{"stock, blocks of 1 KiB", stock("1024")},
		{"stock, blocks of 4 KiB", stock("4096")},
		{"native", func(t *testing.T) string { return ext4test.EdgeCases(t).Write(ext4test.Options()) }},
	} {
		t.Run(row.name, func(t *testing.T) {
			disk, err := os.ReadFile(row.make(t))
			if err != nil {
				t.Fatal(err)
			}
			flipBits(t, disk)
		})
	}
}

func flipBits(t *testing.T, disk []byte) {
	t.Helper()
	unchecked := uncheckedRanges(t, disk)
	bytes := metadata(t, disk)
	random := rand.New(rand.NewPCG(1, 2))
	tried := 0
	for range 200 {
		at := bytes[random.IntN(len(bytes))]
		if slices.ContainsFunc(unchecked, func(s [2]int64) bool { return at >= s[0] && at < s[1] }) {
			continue
		}
		tried++
		o := ext4test.Overlay{Disk: disk, At: at, Flip: 1 << random.IntN(8)}
		if len(o.Problems(t)) == 0 {
			t.Errorf("byte %#x ^ %#x: no problem found", at, o.Flip)
		}
	}
	if tried < 140 {
		t.Errorf("only %d bits flipped", tried)
	}
}

// uncheckedRanges returns the ranges of bytes that a check reads and that have no
// checksum.
func uncheckedRanges(t *testing.T, disk []byte) (out [][2]int64) {
	t.Helper()
	fs, err := read.Open(&ext4test.Overlay{Disk: disk, At: -1}, int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	bs := int64(fs.Super().BlockSize)
	first, perGroup := int64(0), 8*bs
	if bs == 1024 {
		first = 1
	}
	groups := (int64(len(disk))/bs - first + perGroup - 1) / perGroup
	for g := range groups { // the descriptors, of 64 bytes each, fit in one block
		descriptors := (first + g*perGroup + 1) * bs
		out = append(out, [2]int64{descriptors + groups*64, descriptors + bs})
	}
	err = fs.Walk(func(_ string, in *read.Inode) error {
		if in.Type == tree.Symlink && in.Size >= 60 {
			blocks, err := ext4test.Blocks(fs, in)
			out = append(out, [2]int64{blocks[0], blocks[0] + bs})
			return err
		}
		if in.Flags&format.FlagIndex == 0 {
			return nil
		}
		blocks, err := ext4test.Blocks(fs, in)
		for i, b := range blocks {
			if head, isNode := indexHead(disk[b:b+bs], i); isNode {
				used := int64(binary.LittleEndian.Uint16(disk[b+head+2:])) * 8
				out = append(out, [2]int64{b + head + used, b + bs - 8})
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// indexHead reports whether a block of a directory is a node of its hash tree, and
// returns the offset of the node's entries.
func indexHead(block []byte, number int) (int64, bool) {
	if number == 0 {
		return 32, true
	}
	length := int(binary.LittleEndian.Uint16(block[4:]))
	return 8, binary.LittleEndian.Uint32(block) == 0 && length == len(block)
}
