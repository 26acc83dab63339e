package check_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
)

// TestMetadataFindsMistakes damages disks with debugfs, which writes valid
// checksums: the check must find the contradiction itself.
func TestMetadataFindsMistakes(t *testing.T) {
	good := ext4test.StockDisk(t, ext4test.SourceFolder(t, 300), "32M", "-b", "4096")
	ext4test.E2Tool(t, 1, "e2fsck", "-fyD", good)
	before := ext4test.Digest(t, good)
	for _, row := range []struct {
		name     string
		commands []string
		want     string
	}{
		{"a link count too high", []string{"sif /small links_count 7"}, "7 links, counted 2"},
		{"one name too many", []string{"ln /empty /empty2"}, "1 links, counted 2"},
		{"a file without a name", []string{"unlink /empty"}, "in use, but has no name"},
		{"a directory without a name", []string{"unlink /deep/er"}, "not to be reached"},
		{"a directory in itself", []string{"ln /deep /deep/er/still/deep"}, "second name"},
		{"a name for a free inode", []string{"freei /empty"}, "which is not in use"},
		{"a name for a reserved inode", []string{"ln <8> /journal"}, "which can have no name"},
		{"a name of another type", []string{"sif /fifo mode 0100644"}, "is a fifo, but inode"},
		{"a free block in use", []string{"freeb 300"}, "block bitmap is wrong about 1 blocks, the first is block 300"},
		{"a block in use without an owner", []string{"setb 8000"}, "block bitmap is wrong about 1 blocks, the first is block 8000"},
		{"a block in two files", []string{
			"sif /empty block[0] 0x0001f30a", "sif /empty block[1] 4", "sif /empty block[4] 1", "sif /empty block[5] 300",
			"sif /empty size 4096", "sif /empty blocks 8",
		}, "used twice"},
		{"blocks beyond the end", []string{"sif /large size 100"}, "but only 1 by its size"},
		{"a wrong count of sectors", []string{"sif /large blocks 8"}, "8 sectors, counted"},
		{"a time of deletion", []string{"sif /small dtime 5"}, "time of deletion"},
		{"nanoseconds beyond a second", []string{"sif /small mtime_extra 0xfffffffc"}, "1073741823 nanoseconds"},
		{"a symlink without a target", []string{"sif /short size 0"}, "symlink of 0 bytes"},
		{"a device on the root", []string{"sif <2> mode 020600"}, "the root is not a directory"},
		{"an inode that is used and free", []string{"freei <5>"}, "inode 5: reserved, but not in use"},
		{"a disk that is not clean", []string{"ssv state 2"}, "state 0x2 is not clean"},
		{"an orphaned inode", []string{"ssv last_orphan 12"}, "inode 12 was deleted but not freed"},
		{"free blocks of the disk", []string{"ssv free_blocks_count 5"}, "superblock: 5 free blocks"},
		{"free inodes of the disk", []string{"ssv free_inodes_count 5"}, "superblock: 5 free inodes"},
		{"free blocks of a group", []string{"set_bg 0 free_blocks_count 5", "set_bg 0 checksum calc"}, "group 0: 5 free blocks"},
		{"free inodes of a group", []string{"set_bg 0 free_inodes_count 5", "set_bg 0 checksum calc"}, "group 0: 5 free inodes"},
		{"directories of a group", []string{"set_bg 0 used_dirs_count 50", "set_bg 0 checksum calc"}, "group 0: 50 directories"},
		{"unused inodes in use", []string{"set_bg 0 itable_unused 8190", "set_bg 0 checksum calc"}, "unused part"},
		{"a bitmap beyond the disk", []string{"set_bg 0 block_bitmap 99999999", "set_bg 0 checksum calc"}, "is not on the disk"},
		{"a bitmap on the superblock", []string{"set_bg 0 block_bitmap 0", "set_bg 0 checksum calc"}, "is not on the disk"},
		{"a journal that is too short", []string{"sif <8> size 4096"}, "journal: length"},
		{"no journal", []string{"sif <8> mode 040600"}, "journal: inode 8 is not a file"},
		{"another hash seed", []string{"ssv hash_seed 01234567-89ab-cdef-0123-456789abcdef"}, "hash tree"},
		{"a wrong block of the resize inode", []string{"sif <7> block[DIND] 300"}, "resize inode"},
		{"another UUID", []string{"ssv uuid 01234567-89ab-cdef-0123-456789abcdef"}, "checksum"},
	} {
		t.Run(row.name, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk")
			ext4test.CopyDisk(t, disk, good)
			for _, command := range row.commands {
				ext4test.E2Tool(t, 0, "debugfs", "-w", "-R", command, disk)
			}
			if ext4test.Digest(t, disk) == before {
				t.Fatal("debugfs changed nothing")
			}
			found := problemsOf(t, disk)
			if !slices.ContainsFunc(found, func(p string) bool { return strings.Contains(p, row.want) }) {
				t.Errorf("found %q, want %q", found, row.want)
			}
		})
	}
}

// problemsOf returns the problems of a disk. An error of the open is one.
func problemsOf(t *testing.T, disk string) []string {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return ext4test.Problems(t, f, info.Size())
}
