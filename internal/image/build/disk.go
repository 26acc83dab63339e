package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/e2fs"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Builder is what writes the file system.
type Builder string

// The builders. They agree on every inode.
const (
	Native    Builder = "native"    // package ext4
	E2fsprogs Builder = "e2fsprogs" // mkfs.ext4 -d and debugfs

	DefaultBuilder = Native
)

// layoutVersion changes when disks of the same image and options come out
// different from those of an earlier version.
const layoutVersion = 2

// identity is what determines the bytes of a disk. Its hash gives the file
// system's UUID and the seed of its directory hashes, which differ between
// disks and yet are no matter of chance.
type identity struct {
	Layout   int
	Layers   []digest.DiffID
	Created  tree.Time
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

// disk is the disk of one build, a file in the scratch folder.
type disk struct {
	o       Options
	scratch string
	path    string
	file    *os.File       // of the native builder
	guess   *ext4.DataFile // where the largest layer as stored unpacks to
	old     *os.File       // see startOver
	shares  bool           // spools lie where copies share their extents
}

func newDisk(scratch string, o Options) (*disk, error) {
	d := &disk{o: o, scratch: scratch, path: filepath.Join(scratch, "disk")}
	if o.builder() != Native {
		return d, nil
	}
	if err := d.open(); err != nil {
		return nil, err
	}
	d.guess = ext4.NewDataFile(d.file)
	return d, nil
}

func (d *disk) open() (err error) {
	d.file, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	return err
}

func (d *disk) close() error {
	var errs []error
	for _, f := range []*os.File{d.file, d.old} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// spool is where the largest layer unpacks into the disk, so that its bodies
// need not be copied; nil where the builder cannot do that.
func (d *disk) spool() spool {
	if d.guess == nil {
		return nil
	}
	return &eager{DataFile: d.guess, file: d.file}
}

// eager has the kernel begin to write what is there already, so that little
// is left to wait for at the end.
type eager struct {
	*ext4.DataFile
	file    *os.File
	pending int
}

const eagerBytes = 32 << 20

// WriteAt is called by one goroutine at a time.
func (e *eager) WriteAt(p []byte, off int64) (int, error) {
	n, err := e.DataFile.WriteAt(p, off)
	if e.pending += n; e.pending >= eagerBytes && err == nil {
		e.pending = 0
		// No more than a wish: the fsync at the end is what counts.
		_ = unix.SyncFileRange(int(e.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return n, err
}

// write builds the file system of tree.
func (d *disk) write(ctx context.Context, tree *tree.Tree, layers []*unpacked, created tree.Time) (*Result, error) {
	o := d.o
	id := identity{
		Layout: layoutVersion, Created: created, Builder: o.builder(), Scoped: o.Scoped,
		Size: o.Size, Headroom: o.Headroom, Label: o.Label, UUID: o.UUID,
	}
	res := &Result{Inodes: tree.NumInodes()}
	for _, u := range layers {
		id.Layers = append(id.Layers, u.info.DiffID)
		res.Layers = append(res.Layers, store.Layer{Digest: u.layer.Digest(), DiffID: u.info.DiffID, Size: u.layer.Size()})
		res.Warnings = append(res.Warnings, u.info.Warnings...)
	}
	s, err := id.seeds()
	if err != nil {
		return nil, err
	}
	res.UUID, res.key = formatUUID(s.uuid), s.key
	o.report(Event{Step: StepBuild})
	if d.guess != nil {
		err = d.native(ctx, tree, layers, created, s, res)
	} else {
		err = d.e2fsprogs(ctx, tree, layers, created, s, res)
	}
	if err != nil {
		return nil, fmt.Errorf("build disk: %w", err)
	}
	res.disk = d.path
	return res, syncFile(d.path)
}

// native places the bodies by what the tables say alone: the layer with the
// most of them lies in front. It is most likely the one that was unpacked
// into the disk already; where it is not, the disk so far is but a spool.
func (d *disk) native(
	ctx context.Context, tree *tree.Tree, layers []*unpacked, created tree.Time, s seeds, res *Result,
) error {
	spools := make([]io.ReaderAt, len(layers))
	direct, inDisk := -1, -1
	for i, u := range layers {
		spools[i] = u.bodies
		if u.file == nil {
			inDisk = i
		}
		if direct < 0 || u.info.SpoolBytes > layers[direct].info.SpoolBytes {
			direct = i
		}
	}
	if inDisk >= 0 && inDisk == direct {
		spools[direct] = nil
	} else if inDisk >= 0 {
		if err := d.startOver(); err != nil {
			return err
		}
		inDisk = -1
	}
	if !d.shares {
		if err := checkSpace(d.scratch, bodyBytes(tree, inDisk)); err != nil {
			return err
		}
	}
	layout, err := ext4.Plan(tree, ext4.Options{
		Size: d.o.Size, Headroom: d.o.Headroom, Label: d.o.Label, UUID: s.uuid, HashSeed: s.hashSeed,
		Created: created, Direct: direct,
	})
	if err != nil {
		return err
	}
	res.Size = layout.Size()
	res.Warnings = append(res.Warnings, layout.Warnings()...)
	return layout.Write(ctx, d.file, spools, d.o.reportBuild)
}

// startOver begins a new disk file. The old one stays open as the spool of
// the layer in it, without a name.
func (d *disk) startOver() error {
	if err := os.Remove(d.path); err != nil {
		return err
	}
	d.old = d.file
	return d.open()
}

func (d *disk) e2fsprogs(
	ctx context.Context, tree *tree.Tree, layers []*unpacked, created tree.Time, s seeds, res *Result,
) error {
	spools := make([]io.ReaderAt, len(layers))
	for i, u := range layers {
		spools[i] = u.bodies
	}
	// The content is staged, and then copied into the disk.
	if err := checkSpace(d.scratch, 2*bodyBytes(tree, -1)); err != nil {
		return err
	}
	built, err := e2fs.Build(ctx, tree, spools, d.path, e2fs.Options{
		Size: d.o.Size, Headroom: d.o.Headroom, Label: d.o.Label, UUID: s.uuid, HashSeed: s.hashSeed,
		Created: created, ScratchDir: d.scratch,
	}, d.o.reportBuild)
	res.Size = built.Size
	res.Warnings = append(res.Warnings, built.Warnings...)
	return err
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
