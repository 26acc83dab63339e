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

// Options say what the disk shall be like. ScratchDir must be set.
type Options struct {
	Size     int64 // of the disk in bytes; 0: from the content, MinSize at least
	Headroom int64 // bytes free over the content where Size is 0; 0: a quarter of the content, 32 MiB at least

	Label    string    // of the file system, at most 16 bytes
	UUID     [16]byte  // of the file system
	HashSeed [16]byte  // of the directory hash; mkfs.ext4 makes one up when it is zero
	Created  tree.Time // when the file system and its inodes were made

	ScratchDir string // existing private folder, with room for the content
	ToolDir    string // where mkfs.ext4 and debugfs are; "": $PATH, then the folders for system programs
}

// Result tells about a disk that was built.
type Result struct {
	Size     int64    // of the disk in bytes, holes included
	Warnings []string // what the disk does not carry as the tree has it
}

// Build makes disk, a file that does not exist yet or is empty, an ext4 file
// system that holds t. spools are the bodies of the layers by number.
// progress may be nil; done and total are bytes of work, not of the disk.
//
// What is wrong with the tree or the options is found before anything is
// written: ErrUnsafeName, *SizeError, *MissingToolError. When the host has no
// room the error is syscall.ENOSPC. After an error, or when ctx ends, disk is
// gone and ScratchDir as it was.
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
	found, err := survey(t)
	if err != nil {
		return Result{}, err
	}
	geo, err := plan(found.content, o)
	if err != nil {
		return Result{}, err
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
			err = ctx.Err() // says more than "signal: killed"
		}
		return Result{}, errors.Join(err, os.Remove(disk))
	}
	return Result{Size: geo.size, Warnings: found.warnings()}, nil
}

// builder is one build under way.
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

// createDisk makes the file that mkfs.ext4 fills. It is sparse, and reads as
// zeros all over, which mkfs.ext4 is told.
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
		return fmt.Errorf("create disk: %s is there already and not an empty file", path)
	}
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("create disk: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// workspace is the folder that the programs run in. They are given names in
// it alone: a host path could hold what they take for syntax, such as the
// "?" before I/O options in the name of a device.
type workspace struct {
	path string // absolute
	root *os.Root
}

// Names in a workspace.
const (
	stageName  = "stage"       // the tree, as mkfs.ext4 is to read it
	diskName   = "disk"        // symlink to the disk
	valuesName = "values"      // values of extended attributes, by number
	scriptName = "script"      // commands for debugfs
	configName = "mke2fs.conf" // in place of the host's
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
	// The umask may have taken more away than it should.
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

// write makes the file name of the workspace anew.
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

// report counts the bytes that were staged, and then those of mkfs.ext4,
// which tells nothing while it runs.
type report struct {
	done, total int64
	tell        func(done, total int64)
}

func newReport(bytes int64, tell func(done, total int64)) *report {
	if tell == nil {
		tell = func(int64, int64) {}
	}
	return &report{total: 2 * bytes, tell: tell}
}

func (r *report) add(n int64) {
	r.done += n
	r.tell(r.done, r.total)
}

func (r *report) finish() { r.add(r.total - r.done) }
