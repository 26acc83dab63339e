package e2fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/image/tree"
)

// Options describe the disk to build. ScratchDir must be set.
type Options struct {
	Size     int64 // of the disk in bytes; 0 derives it from the content, at least MinSize
	Headroom int64 // free bytes beside the content if Size is 0; 0 is a quarter of the content, at least 32 MiB

	Label    string    // of the file system, at most 16 bytes
	UUID     [16]byte  // of the file system
	HashSeed [16]byte  // of the directory hash; if it is zero, mkfs.ext4 chooses a random one
	Created  tree.Time // creation time of the file system and its inodes

	// Admit is called before anything is written, unless it is nil, with the size
	// of the disk and with the bytes and files that the build takes on the host. An
	// error ends the build.
	Admit func(size, bytes, files int64) error

	ScratchDir string // existing private folder, with room for the content
	ToolDir    string // folder of mkfs.ext4 and debugfs; "" searches $PATH, then the folders for system programs
}

// Result describes a disk that was built.
type Result struct {
	Size     int64    // of the disk in bytes, holes included
	Warnings []string // metadata of the tree that the disk does not have, or has changed
}

// Build writes an ext4 file system that holds t to disk. The file must not
// exist, or must be empty. spools are the bodies of the layers by number.
// progress may be nil. Its done and total are bytes of work, not of the disk.
//
// Build checks the tree and the options before it writes anything. It returns
// ErrUnsafeName, a *SizeError or a *MissingToolError. If the host has no room,
// it returns an error that wraps syscall.ENOSPC. After an error, and if ctx
// ends, Build removes disk and its files in ScratchDir.
func Build(
	ctx context.Context, t *tree.Tree, spools []io.ReaderAt, disk string, o Options,
	progress func(done, total int64),
) (_ Result, err error) {
	tools, err := findTools(o.ToolDir)
	if err != nil {
		return Result{}, err
	}
	if len(o.Label) > maxLabel {
		return Result{}, fmt.Errorf("label %q is longer than %d bytes", o.Label, maxLabel)
	}
	found, err := inspect(t)
	if err != nil {
		return Result{}, err
	}
	geo, err := plan(found.content, o)
	if err != nil {
		return Result{}, err
	}
	if o.Admit != nil {
		if err := o.Admit(geo.size, found.content.hostBytes(), found.content.inodes); err != nil {
			return Result{}, err
		}
	}
	work, err := newWorkspace(o.ScratchDir, disk)
	if err != nil {
		return Result{}, err
	}
	defer func() { err = errors.Join(err, work.remove()) }()
	if err := createDisk(disk, geo.size); err != nil {
		return Result{}, err
	}
	b := builder{tree: t, spools: spools, o: o, tools: tools, geo: geo, work: work}
	b.report = newReport(found.content.bytes, progress)
	if err := b.run(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err() // clearer than "signal: killed"
		}
		return Result{}, errors.Join(err, os.Remove(disk))
	}
	return Result{Size: geo.size, Warnings: found.warnings()}, nil
}

// builder is the state of one build.
type builder struct {
	tree   *tree.Tree
	spools []io.ReaderAt
	o      Options
	tools  tools
	geo    geometry
	work   *workspace
	report *report
}

func (b *builder) run(ctx context.Context) error {
	if err := b.stage(ctx); err != nil {
		return err
	}
	if err := b.makeFS(ctx); err != nil {
		return err
	}
	b.report.finish()
	r := restorer{tree: b.tree, created: b.o.Created, work: b.work, debugfs: b.tools.debugfs}
	return r.run(ctx)
}

// createDisk makes the file that mkfs.ext4 fills. The file is one hole, so
// that mkfsArgs can pass assume_storage_prezeroed.
func createDisk(path string, size int64) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|noFollow, 0o644)
	if err != nil {
		return fmt.Errorf("create disk: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("create disk: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() != 0 {
		return fmt.Errorf("create disk: %s exists and is not an empty file", path)
	}
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("create disk: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// workspace is the folder that the programs run in. They get only names in
// this folder, because a host path could contain a character that is syntax
// for them, such as the "?" before I/O options in the name of a device.
type workspace struct {
	path string // absolute
	root *os.Root
}

// Names in a workspace.
const (
	stageName  = "stage"       // tree that mkfs.ext4 copies
	diskName   = "disk"        // symlink to the disk
	valuesName = "values"      // values of extended attributes, by number
	scriptName = "script"      // commands for debugfs
	configName = "mke2fs.conf" // replaces the host's
)

func newWorkspace(scratch, disk string) (_ *workspace, err error) {
	disk, err = filepath.Abs(disk)
	if err != nil {
		return nil, fmt.Errorf("find disk: %w", err)
	}
	scratch, err = filepath.Abs(scratch)
	if err != nil {
		return nil, fmt.Errorf("find scratch folder: %w", err)
	}
	path, err := os.MkdirTemp(scratch, "e2fs-")
	if err != nil {
		return nil, fmt.Errorf("make staging folder: %w", err)
	}
	w := &workspace{path: path}
	if err := w.fill(disk); err != nil {
		return nil, fmt.Errorf("make staging folder: %w", errors.Join(err, w.remove()))
	}
	return w, nil
}

func (w *workspace) fill(disk string) error {
	// The umask may have removed permissions of the owner.
	if err := os.Chmod(w.path, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(w.path)
	if err != nil {
		return err
	}
	w.root = root
	for _, name := range []string{stageName, valuesName} {
		if err := makeDir(root, name); err != nil {
			return err
		}
	}
	return root.Symlink(disk, diskName)
}

func (w *workspace) remove() error {
	var err error
	if w.root != nil {
		err = w.root.Close()
	}
	return errors.Join(err, os.RemoveAll(w.path))
}

// write writes data to the file name in the workspace. It replaces an existing
// file.
func (w *workspace) write(name string, data []byte) (err error) {
	f, err := w.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	_, err = f.Write(data)
	return err
}

// report counts the bytes of work: each byte once when it is staged and once
// when mkfs.ext4 has copied it. mkfs.ext4 reports no progress while it runs.
type report struct {
	done, total int64
	progress    func(done, total int64)
}

func newReport(bytes int64, progress func(done, total int64)) *report {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	return &report{total: 2 * bytes, progress: progress}
}

func (r *report) add(n int64) {
	r.done += n
	r.progress(r.done, r.total)
}

func (r *report) finish() { r.add(r.total - r.done) }
