package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/banger-vm/banger/internal/digest"
	"github.com/banger-vm/banger/internal/e2fs"
	"github.com/banger-vm/banger/internal/fstree"
	"github.com/banger-vm/banger/internal/store"
)

// Builder is what writes the file system.
type Builder string

// The builders. They agree on every inode.
const (
	E2fsprogs Builder = "e2fsprogs" // mkfs.ext4 -d and debugfs

	DefaultBuilder = E2fsprogs
)

// layoutVersion changes when disks of the same image and options come out
// different from those of an earlier version.
const layoutVersion = 1

// identity is what determines the bytes of a disk. Its hash gives the file
// system's UUID and the seed of its directory hashes, which differ between
// disks and yet are no matter of chance.
type identity struct {
	Layout   int
	Layers   []digest.DiffID
	Created  fstree.Time
	Builder  Builder
	Scoped   bool
	Size     int64
	Headroom int64
	Label    string
	UUID     string
}

// seeds are the parts of an identity's hash.
type seeds struct {
	uuid     [16]byte
	hashSeed [16]byte
	key      string // names the disk in the store
}

func (i identity) seeds() (seeds, error) {
	data, err := json.Marshal(i)
	if err != nil {
		return seeds{}, err
	}
	sum := sha256.Sum256(data)
	s := seeds{key: hex.EncodeToString(sum[:4])}
	copy(s.uuid[:], sum[:16])
	copy(s.hashSeed[:], sum[16:])
	// Version 8 and the variant, RFC 9562 section 5.8.
	s.uuid[6] = s.uuid[6]&0x0f | 0x80
	s.uuid[8] = s.uuid[8]&0x3f | 0x80
	if i.UUID != "" {
		s.uuid, err = ParseUUID(i.UUID)
	}
	return s, err
}

// ParseUUID reads the form 8-4-4-4-12 of RFC 9562 section 4.
func ParseUUID(text string) (id [16]byte, err error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err != nil || len(raw) != len(id) || !strings.EqualFold(formatUUID([16]byte(raw)), text) {
		return id, fmt.Errorf("UUID %q: want the form 01234567-89ab-cdef-0123-456789abcdef", text)
	}
	return [16]byte(raw), nil
}

func formatUUID(b [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// writeDisk builds the file system of tree in the folder scratch.
func writeDisk(
	ctx context.Context, tree *fstree.Tree, layers []*unpacked, created fstree.Time, scratch string, o Options,
) (*Result, error) {
	id := identity{
		Layout: layoutVersion, Created: created, Builder: o.builder(), Scoped: o.Scoped,
		Size: o.Size, Headroom: o.Headroom, Label: o.Label, UUID: o.UUID,
	}
	res := &Result{Inodes: tree.NumInodes(), disk: filepath.Join(scratch, "disk")}
	var spools []io.ReaderAt
	for _, u := range layers {
		id.Layers = append(id.Layers, u.info.DiffID)
		spools = append(spools, u.spool)
		res.Layers = append(res.Layers, store.Layer{Digest: u.layer.Digest(), DiffID: u.info.DiffID, Size: u.layer.Size()})
		res.Warnings = append(res.Warnings, u.info.Warnings...)
	}
	s, err := id.seeds()
	if err != nil {
		return nil, err
	}
	res.UUID, res.key = formatUUID(s.uuid), s.key
	o.report(Event{Step: StepBuild})
	built, err := e2fs.Build(ctx, tree, spools, res.disk, e2fs.Options{
		Size: o.Size, Headroom: o.Headroom, Label: o.Label, UUID: s.uuid, HashSeed: s.hashSeed,
		Created: created, ScratchDir: scratch,
	}, o.reportBuild)
	if err != nil {
		return nil, fmt.Errorf("build disk: %w", err)
	}
	res.Size = built.Size
	res.Warnings = append(res.Warnings, built.Warnings...)
	return res, syncFile(res.disk)
}

func (o *Options) reportBuild(done, total int64) {
	o.report(Event{Step: StepBuild, Done: done, Total: total, Finished: done == total})
}

// syncFile writes a file through to the device.
func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write disk: %w", err)
	}
	return nil
}
