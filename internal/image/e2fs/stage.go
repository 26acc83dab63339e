package e2fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/tree"
)

const (
	noFollow  = unix.O_NOFOLLOW
	copyChunk = 1 << 20 // bytes
)

// stager writes a tree into a folder for mkfs.ext4 -d. All files belong to the
// user of this process, with modes that let mkfs.ext4 read them as that user.
// The restorer sets owners, modes, times and extended attributes later.
type stager struct {
	tree   *tree.Tree
	spools []io.ReaderAt
	top    *os.Root
	first  map[tree.ID]string // path of the first name of a file with several names
	buf    []byte
	report *report
}

func (b *builder) stage(ctx context.Context) error {
	top, err := b.work.root.OpenRoot(stageName)
	if err != nil {
		return fmt.Errorf("open staging folder: %w", err)
	}
	defer top.Close()
	s := stager{
		tree: b.tree, spools: b.spools, top: top, first: map[tree.ID]string{},
		buf: make([]byte, copyChunk), report: b.report,
	}
	return s.children(ctx, tree.Root, top, "")
}

// children stages the children of directory id. It creates each name in dir,
// which is open, so the host never looks up a path of the image.
func (s *stager) children(ctx context.Context, id tree.ID, dir *os.Root, prefix string) error {
	for name, child := range s.tree.Children(id) {
		if err := ctx.Err(); err != nil {
			return err
		}
		path := prefix + name
		if s.tree.Type(child) == tree.Directory {
			if err := s.directory(ctx, dir, name, path, child); err != nil {
				return err
			}
			continue
		}
		if err := s.leaf(ctx, dir, name, path, child); err != nil {
			return fmt.Errorf("stage %q: %w", path, err)
		}
	}
	return nil
}

func (s *stager) directory(ctx context.Context, dir *os.Root, name, path string, id tree.ID) error {
	if err := makeDir(dir, name); err != nil {
		return fmt.Errorf("stage %q: %w", path, err)
	}
	sub, err := dir.OpenRoot(name)
	if err != nil {
		return fmt.Errorf("stage %q: %w", path, err)
	}
	defer sub.Close()
	return s.children(ctx, id, sub, path+"/")
}

// makeDir makes a directory with mode 0700 under any umask.
func makeDir(dir *os.Root, name string) error {
	if err := dir.Mkdir(name, 0o700); err != nil {
		return err
	}
	return dir.Chmod(name, 0o700)
}

func (s *stager) leaf(ctx context.Context, dir *os.Root, name, path string, id tree.ID) error {
	in := s.tree.Inode(id)
	switch in.Type {
	case tree.Symlink:
		// One symlink for each name, because mkfs.ext4 copies hard links of a
		// symlink as separate inodes.
		return dir.Symlink(in.Target, name)
	case tree.Regular:
		if first, ok := s.first[id]; ok {
			return s.top.Link(first, path)
		}
		if in.Links > 1 {
			s.first[id] = path
		}
		return s.file(ctx, dir, name, in)
	case tree.CharDevice, tree.BlockDevice, tree.Fifo:
		return nil // makeSpecial makes it on the disk, because a plain user cannot stage a device
	default:
		return fmt.Errorf("inode is of %s", in.Type)
	}
}

func (s *stager) file(ctx context.Context, dir *os.Root, name string, in tree.Inode) (err error) {
	f, err := dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL|noFollow, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	if err := s.body(ctx, f, in); err != nil {
		return err
	}
	if runs := bodyRuns(in); in.Size == 0 || len(runs) > 0 && end(runs[len(runs)-1]) == in.Size {
		return nil
	}
	return f.Truncate(in.Size) // the file ends in a hole
}

// body copies the runs of a file to their offsets. The space between them
// remains a hole.
func (s *stager) body(ctx context.Context, f *os.File, in tree.Inode) error {
	if in.Size == 0 {
		return nil
	}
	if in.Body.Layer < 0 || in.Body.Layer >= len(s.spools) {
		return fmt.Errorf("body is in the spool of layer %d of %d", in.Body.Layer, len(s.spools))
	}
	spool, off := s.spools[in.Body.Layer], in.Body.Offset
	for _, run := range bodyRuns(in) {
		if err := s.run(ctx, f, spool, off, run); err != nil {
			return err
		}
		off += roundUp(run.Length, tree.BlockSize)
	}
	return nil
}

func (s *stager) run(ctx context.Context, f *os.File, spool io.ReaderAt, off int64, run tree.Run) error {
	for at := int64(0); at < run.Length; {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := s.buf[:min(int64(len(s.buf)), run.Length-at)]
		if n, err := spool.ReadAt(p, off+at); n < len(p) {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read spool: %w", err)
		}
		if _, err := f.WriteAt(p, run.Offset+at); err != nil {
			return err
		}
		at += int64(len(p))
		s.report.add(int64(len(p)))
	}
	return nil
}

// bodyRuns returns the runs of a regular file. If the file has no holes, it is
// one run.
func bodyRuns(in tree.Inode) []tree.Run {
	if in.Body.Runs != nil || in.Size == 0 {
		return in.Body.Runs
	}
	return []tree.Run{{Length: in.Size}}
}

func end(r tree.Run) int64 { return r.Offset + r.Length }

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
