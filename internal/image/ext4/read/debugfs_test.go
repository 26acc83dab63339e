package read_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/ext4/ext4test"
	"github.com/banger-vm/banger/internal/image/ext4/read"
)

// TestNameHash compares hashes with those of debugfs.
func TestNameHash(t *testing.T) {
	const uuid = "01234567-89ab-cdef-0123-456789abcdef"
	raw := []byte{0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef}
	var seed [4]uint32
	for i := range seed {
		seed[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	names := []string{"a", "ab", "four", "fifteen-letters", "Straße", "lost+found", strings.Repeat("é", 16), strings.Repeat("32 letters and then a few more. ", 7), strings.Repeat("\xff", 255)}
	compared := 0
	for version, name := range []string{"legacy", "half_md4", "tea"} {
		for _, text := range names {
			for _, seeded := range []bool{true, false} {
				args, with := "", [4]uint32{}
				if seeded {
					args, with = " -s "+uuid, seed
				}
				out := ext4test.E2Tool(t, 0, "debugfs", "-R", fmt.Sprintf("dx_hash -h %s%s \"%s\"", name, args, text))
				_, after, _ := strings.Cut(out, text+" is 0x")
				got, err := read.NameHash(byte(version), with, text)
				if want := fmt.Sprintf("%x", got); err != nil || !strings.HasPrefix(after, want+" ") {
					t.Errorf("%s of %q is %s (%v), debugfs says %s", name, text, want, err, out)
				}
				compared++
			}
		}
	}
	if compared < 50 {
		t.Errorf("only %d hashes compared", compared)
	}
}

// TestReadDevicesAndXattrsByDebugfs reads devices and extended attributes that an
// unprivileged user cannot make in a folder.
func TestReadDevicesAndXattrsByDebugfs(t *testing.T) {
	large := strings.Repeat("a large value ", 300)[:4096] // debugfs reads no more of a file
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(large), 0o600); err != nil {
		t.Fatal(err)
	}
	disk := ext4test.StockDisk(t, t.TempDir(), "32M", "-b", "4096", "-O", "ea_inode")
	for _, command := range []string{
		"mknod old c 5 1", "mknod wide b 1 1", "sif wide block[0] 0", "sif wide block[1] 0x11112c70",
		"ea_set -f " + file + " / user.large", "ea_set / user.small tiny", "ea_set / trusted.empty \"\"",
		"ea_set / user.middle " + strings.Repeat("m", 500),
	} {
		ext4test.E2Tool(t, 0, "debugfs", "-w", "-R", command, disk)
	}
	fs := ext4test.Open(t, disk)
	ext4test.CheckMetadata(t, fs)
	root := inodeAt(t, fs, ".")
	for path, want := range map[string][2]uint32{"old": {5, 1}, "wide": {300, 70000}} {
		if in := inodeAt(t, fs, path); in.Major != want[0] || in.Minor != want[1] {
			t.Errorf("%s is device %d:%d, want %v", path, in.Major, in.Minor, want)
		}
	}
	xattrs, err := fs.Xattrs(root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, x := range xattrs {
		names = append(names, x.Name)
		if x.Name == "user.large" && x.Value != large {
			t.Errorf("user.large has %d bytes, want %d", len(x.Value), len(large))
		}
	}
	if got := strings.Join(names, " "); got != "trusted.empty user.large user.middle user.small" {
		t.Errorf("attributes %s", got)
	}
	// An inode of its own holds the value. The reader must see damage in its data.
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	o := ext4test.Overlay{Disk: data, At: int64(bytes.Index(data, []byte("a large value"))), Flip: 1}
	if found := o.Problems(t); len(found) == 0 || !strings.Contains(found[0], "hash of the extended attribute") {
		t.Errorf("found %q", found)
	}
}

// TestReadACL converts an access control list to the form of getxattr(2).
func TestReadACL(t *testing.T) {
	// Version 1; then user::rwx, user:1000:r--, group::r-x, mask::r-x, other::---.
	onDisk := "\x01\x00\x00\x00" + "\x01\x00\x07\x00" + "\x02\x00\x04\x00\xe8\x03\x00\x00" + "\x04\x00\x05\x00" + "\x10\x00\x05\x00" + "\x20\x00\x00\x00"
	want := "\x02\x00\x00\x00" + "\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x04\x00\xe8\x03\x00\x00" +
		"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x00\x00\xff\xff\xff\xff"
	got, err := read.DecodeACL([]byte(onDisk))
	if err != nil || string(got) != want {
		t.Errorf("%q (%v), want %q", got, err, want)
	}
	for n := range len(onDisk) {
		got, err := read.DecodeACL([]byte(onDisk[:n]))
		if err == nil && !strings.HasPrefix(want, string(got)) {
			t.Errorf("%d bytes: %q", n, got)
		}
	}
	if _, err := read.DecodeACL([]byte(want)); err == nil {
		t.Error("the form of getxattr passes for the form on disk")
	}
}

func inodeAt(t *testing.T, fs *read.FS, path string) (found *read.Inode) {
	t.Helper()
	err := fs.Walk(func(p string, in *read.Inode) error {
		if p == path {
			found = in
		}
		return nil
	})
	if err != nil || found == nil {
		t.Fatalf("%s: not found (%v)", path, err)
	}
	return found
}

// TestLookupUsesTheHash changes the hash seed: Lookup then misses names, as the
// kernel does.
func TestLookupUsesTheHash(t *testing.T) {
	disk := ext4test.StockDisk(t, ext4test.SourceFolder(t, 300), "32M", "-b", "4096")
	ext4test.E2Tool(t, 1, "e2fsck", "-fyD", disk)
	ext4test.E2Tool(t, 0, "debugfs", "-w", "-R", "ssv hash_seed 01234567-89ab-cdef-0123-456789abcdef", disk)
	fs := ext4test.Open(t, disk)
	var crowd *read.Inode
	if err := fs.Walk(func(path string, in *read.Inode) error {
		if path == "crowd" {
			crowd = in
		}
		return nil
	}); err != nil || crowd == nil {
		t.Fatal(crowd, err)
	}
	lost := 0
	err := fs.ReadDir(crowd, func(e read.DirEntry) error {
		n, err := fs.Lookup(crowd, e.Name)
		if n == 0 {
			lost++
		}
		return err
	})
	if err != nil || lost == 0 {
		t.Errorf("%d names lost (%v)", lost, err)
	}
}
