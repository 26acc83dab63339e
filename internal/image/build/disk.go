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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/e2fs"
	ext4 "github.com/banger-vm/banger/internal/image/ext4/write"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
)

// Builder names a program that writes the file system.
type Builder string

// The builders. They write the same inodes.
const (
	Native    Builder = "native"    // package ext4
	E2fsprogs Builder = "e2fsprogs" // mkfs.ext4 -d and debugfs

	DefaultBuilder = Native
)

// layoutVersion changes if this version of the package writes other bytes than the
// last one for the same image and options.
const layoutVersion = 2

// identity has everything that determines the bytes of a disk. The UUID of the file
// system and the seed of its directory hashes are parts of its hash. So they differ
// between disks, but are the same in every build of a disk.
type identity struct {
	Layout   int
	Layers   []digest.DiffID
	Created  tree.Time
	Builder  Builder
	Scoped   bool // the other rules for paths make the same tree of an image that they accept
	Size     int64
	Headroom int64
	Label    string
	UUID     string
}

// seeds are parts of the hash of an identity.
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

// ParseUUID parses a UUID of the form 8-4-4-4-12 (RFC 9562, section 4).
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
	options       Options
	scratch       string
	path          string
	file          *os.File       // of the native builder
	dataFile      *ext4.DataFile // the spool of the largest layer as stored
	oldFile       *os.File       // set by startOver
	sharesExtents bool           // copies from the spools share their extents
}

func newDisk(scratch string, o Options) (*disk, error) {
	d := &disk{options: o, scratch: scratch, path: filepath.Join(scratch, "disk")}
	if o.builder() != Native {
		return d, nil
	}
	if err := d.open(); err != nil {
		return nil, err
	}
	d.dataFile = ext4.NewDataFile(d.file)
	return d, nil
}

func (d *disk) open() (err error) {
	d.file, err = os.OpenFile(d.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	return err
}

func (d *disk) close() error {
	var errs []error
	for _, f := range []*os.File{d.file, d.oldFile} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// spool returns the part of the disk that the largest layer unpacks into, which
// saves the copy of its bodies. It returns nil if the builder cannot use it.
func (d *disk) spool() spool {
	if d.dataFile == nil {
		return nil
	}
	return &writebackFile{DataFile: d.dataFile, file: d.file}
}

// writebackFile starts the kernel's writeback while the layer unpacks. Early
// writeback shortens the fsync at the end.
type writebackFile struct {
	*ext4.DataFile
	file    *os.File
	pending int
}

// writebackBytes is the number of bytes after which writeback starts again.
const writebackBytes = 32 << 20

// Truncate removes all data, because only one layer is in the disk before its
// layout.
func (e *writebackFile) Truncate(int64) error {
	e.pending = 0
	return e.file.Truncate(0)
}

// WriteAt implements io.WriterAt for one goroutine at a time.
func (e *writebackFile) WriteAt(p []byte, off int64) (int, error) {
	n, err := e.DataFile.WriteAt(p, off)
	if e.pending += n; e.pending >= writebackBytes && err == nil {
		e.pending = 0
		// This is only a hint. The fsync at the end reports errors.
		_ = unix.SyncFileRange(int(e.file.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	return n, err
}

// write builds the file system of t, and syncs it to the device.
func (d *disk) write(ctx context.Context, t *tree.Tree, layers []*unpacked, created tree.Time) (*Result, error) {
	o := d.options
	id := identity{
		Layout: layoutVersion, Created: created, Builder: o.builder(), Scoped: o.Paths == tree.Scoped,
		Size: o.Size, Headroom: o.Headroom, Label: o.Label, UUID: o.UUID,
	}
	res := &Result{Inodes: t.NumInodes()}
	for _, u := range layers {
		id.Layers = append(id.Layers, u.info.DiffID)
		res.Layers = append(res.Layers, store.Layer{Digest: u.layer.Digest(), DiffID: u.info.DiffID, Size: u.layer.Size()})
		res.Warnings = append(res.Warnings, u.warnings()...)
	}
	s, err := id.seeds()
	if err != nil {
		return nil, err
	}
	res.UUID, res.key = formatUUID(s.uuid), s.key
	o.report(Event{Step: StepBuild})
	if d.dataFile != nil {
		err = d.writeNative(ctx, t, layers, created, s, res)
	} else {
		err = d.writeE2fsprogs(ctx, t, layers, created, s, res)
	}
	if err != nil {
		return nil, fmt.Errorf("build disk: %w", err)
	}
	res.disk = d.path
	return res, syncFile(d.path)
}

// writeNative builds the file system with package ext4. The layer with the most
// bytes of bodies, by the tables, is the first in the disk. Usually it is the layer
// that was unpacked into the disk. If it is not, the old disk file becomes only a
// spool, and a new one is written: the bytes of a disk must not depend on the
// sizes of the layers as stored.
func (d *disk) writeNative(
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
	layout, err := ext4.Plan(tree, ext4.Options{
		Size: d.options.Size, Headroom: d.options.Headroom, Label: d.options.Label, UUID: s.uuid, HashSeed: s.hashSeed,
		Created: created, Direct: direct,
	})
	if err != nil {
		return err
	}
	need := layout.MetadataBytes()
	if !d.sharesExtents {
		need += bodyBytes(tree, inDisk)
	}
	if err := d.admit(layout.Size(), need, 0); err != nil {
		return err
	}
	res.Size = layout.Size()
	res.Warnings = append(res.Warnings, layout.Warnings()...)
	return layout.Write(ctx, d.file, spools, d.options.reportBuild)
}

// startOver creates a new disk file. The old file has no name from then on, but
// stays open as the spool of the layer in it.
func (d *disk) startOver() error {
	if err := os.Remove(d.path); err != nil {
		return err
	}
	d.oldFile = d.file
	return d.open()
}

// writeE2fsprogs builds the file system with package e2fs.
func (d *disk) writeE2fsprogs(
	ctx context.Context, tree *tree.Tree, layers []*unpacked, created tree.Time, s seeds, res *Result,
) error {
	if err := ext4.Check(tree); err != nil {
		return err
	}
	spools := make([]io.ReaderAt, len(layers))
	for i, u := range layers {
		spools[i] = u.bodies
	}
	report, stop := d.options.repeatBuild()
	defer stop()
	built, err := e2fs.Build(ctx, tree, spools, d.path, e2fs.Options{
		Size: d.options.Size, Headroom: d.options.Headroom, Label: d.options.Label, UUID: s.uuid, HashSeed: s.hashSeed,
		Created: created, ScratchDir: d.scratch, Admit: d.admit,
	}, report)
	res.Size = built.Size
	res.Warnings = append(res.Warnings, built.Warnings...)
	return err
}

// admit returns an error if a disk of size bytes is larger than the limit, or if
// the host has no room for need bytes and so many files. Both builders call it
// before they write.
func (d *disk) admit(size, need, files int64) error {
	if most := d.options.MaxDisk; most > 0 && size > most {
		return fmt.Errorf("disk of %d bytes: %w", size, &tree.LimitError{What: "bytes in a disk", Limit: most, Option: "--max-disk"})
	}
	return checkSpace(d.scratch, need, files)
}

// repeatInterval is the time after which repeatBuild repeats an event.
const repeatInterval = 3 * time.Second

// repeatBuild returns a function like reportBuild for a builder whose programs
// report no progress. It repeats the last event until stop is called, which
// shows that the build goes on.
func (o *Options) repeatBuild() (report func(done, total int64), stop func()) {
	var mu sync.Mutex
	var done, total int64
	report = func(d, t int64) {
		mu.Lock()
		defer mu.Unlock()
		done, total = d, t
		o.reportBuild(d, t)
	}
	end := make(chan struct{})
	var repeats sync.WaitGroup
	repeats.Go(func() {
		tick := time.NewTicker(repeatInterval)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				mu.Lock()
				o.report(Event{Step: StepBuild, Done: done, Total: total})
				mu.Unlock()
			}
		}
	})
	return report, func() { close(end); repeats.Wait() }
}

func (o *Options) reportBuild(done, total int64) {
	o.report(Event{Step: StepBuild, Done: done, Total: total, Finished: done == total})
}

// syncFile syncs a file to the device.
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
