package ext4_test

import (
	"encoding/binary"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4"
	"github.com/banger-vm/banger/internal/image/tree"
)

// overlay shows a disk with one byte changed, and notes what is read.
type overlay struct {
	disk []byte
	at   int64
	flip byte
	note func(off, n int64)
}

func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(o.disk)) {
		return 0, io.EOF
	}
	n := copy(p, o.disk[off:])
	if o.at >= off && o.at < off+int64(n) {
		p[o.at-off] ^= o.flip
	}
	if o.note != nil {
		o.note(off, int64(n))
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (o *overlay) problems(t testing.TB) []string { return problems(t, o, int64(len(o.disk))) }

// problems opens and checks a disk.
func problems(t testing.TB, disk io.ReaderAt, size int64) []string {
	fs, err := ext4.Open(disk, size)
	if err != nil {
		return []string{err.Error()}
	}
	found, err := fs.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// metadata lists the bytes that a check reads.
func metadata(t *testing.T, disk []byte) []int64 {
	t.Helper()
	seen := make([]bool, len(disk))
	o := overlay{disk: disk, at: -1, note: func(off, n int64) {
		for i := off; i < off+n; i++ {
			seen[i] = true
		}
	}}
	for _, p := range o.problems(t) {
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

// TestCheckSeesEveryBit flips bits anywhere in the metadata of a disk, one at a
// time. What no check can see is what has no meaning: the space behind a
// superblock or the last descriptor in their blocks, the unused entries of a
// hash tree, and the targets of long symlinks, which have no checksum.
func TestCheckSeesEveryBit(t *testing.T) {
	stock := func(size string) func(t *testing.T) string {
		return func(t *testing.T) string {
			disk := stockDisk(t, sourceFolder(t, 600), "24M", "-b", size, "-O", "ea_inode")
			e2tool(t, 1, "e2fsck", "-fyD", disk)
			return disk
		}
	}
	for _, row := range []struct {
		name string
		make func(t *testing.T) string
	}{
		{"stock, blocks of 1 KiB", stock("1024")},
		{"stock, blocks of 4 KiB", stock("4096")},
		{"native", func(t *testing.T) string { return wide(t).write(options()) }},
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
	meaningless := spans(t, disk)
	bytes := metadata(t, disk)
	random := rand.New(rand.NewPCG(1, 2))
	tried := 0
	for range 200 {
		at := bytes[random.IntN(len(bytes))]
		if slices.ContainsFunc(meaningless, func(s [2]int64) bool { return at >= s[0] && at < s[1] }) {
			continue
		}
		tried++
		o := overlay{disk: disk, at: at, flip: 1 << random.IntN(8)}
		if len(o.problems(t)) == 0 {
			t.Errorf("byte %#x ^ %#x is not seen", at, o.flip)
		}
	}
	if tried < 140 {
		t.Errorf("only %d bits flipped", tried)
	}
}

// spans lists the ranges of bytes that are read and mean nothing.
func spans(t *testing.T, disk []byte) (out [][2]int64) {
	t.Helper()
	fs, err := ext4.Open(&overlay{disk: disk, at: -1}, int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	bs := int64(fs.BlockSize())
	first, perGroup := int64(0), 8*bs
	if bs == 1024 {
		first = 1
	}
	groups := (int64(len(disk))/bs - first + perGroup - 1) / perGroup
	for g := range groups { // the descriptors, of 64 bytes each, fit in one block
		descriptors := (first + g*perGroup + 1) * bs
		out = append(out, [2]int64{descriptors + groups*64, descriptors + bs})
	}
	err = fs.Walk(func(_ string, in *ext4.Inode) error {
		if in.Type == tree.Symlink && in.Size >= 60 {
			blocks, err := fs.Blocks(in)
			out = append(out, [2]int64{blocks[0], blocks[0] + bs})
			return err
		}
		if in.Flags&0x1000 == 0 {
			return nil
		}
		blocks, err := fs.Blocks(in)
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

// indexHead reports whether a directory's block is a node of its hash tree,
// and where the entries begin.
func indexHead(block []byte, number int) (int64, bool) {
	if number == 0 {
		return 32, true
	}
	length := int(binary.LittleEndian.Uint16(block[4:]))
	return 8, binary.LittleEndian.Uint32(block) == 0 && length == len(block)
}
