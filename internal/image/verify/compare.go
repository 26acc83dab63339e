package verify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	ext4 "github.com/banger-vm/banger/internal/image/ext4/read"
	"github.com/banger-vm/banger/internal/image/tree"
)

// comparison walks the expected tree and compares each inode with the one on
// the disk. It follows only expected names, so a directory on the disk that
// contains itself does not make it loop.
type comparison struct {
	fs       *ext4.FS
	onDisk   map[*node]uint32 // inodes on the disk of expected inodes with several names
	expected map[uint32]*node // the reverse of onDisk
	hashes   chan hashJob

	mu          sync.Mutex
	differences []Difference
}

// hashJob is a file whose content a worker must compare.
type hashJob struct {
	path string
	want *node
	got  *ext4.Inode
}

func compare(ctx context.Context, fs *ext4.FS, root *node, workers int) ([]Difference, error) {
	c := &comparison{
		fs: fs, onDisk: map[*node]uint32{}, expected: map[uint32]*node{}, hashes: make(chan hashJob, workers),
	}
	group, ctx := errgroup.WithContext(ctx)
	for range workers {
		group.Go(func() error {
			for job := range c.hashes {
				if err := c.content(ctx, job); err != nil {
					return err
				}
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(c.hashes)
		return c.inode(ctx, ".", root, ext4.RootInode)
	})
	err := group.Wait()
	return c.differences, err
}

func (c *comparison) differ(path, field string, want, got any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.differences = append(c.differences, Difference{Path: path, Field: field, Want: fmt.Sprint(want), Got: fmt.Sprint(got)})
}

// inode compares the inode that path has on the disk with the expected one.
// Its only error is that of ctx.
func (c *comparison) inode(ctx context.Context, path string, want *node, number uint32) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	got, err := c.fs.Inode(number)
	if err != nil {
		c.differ(path, FieldInode, "readable", err)
		return nil
	}
	if !c.group(path, want, got) {
		return nil
	}
	if got.Type != want.typ {
		c.differ(path, FieldType, want.typ, got.Type)
		return nil
	}
	c.fields(path, want, got)
	switch want.typ {
	case tree.Directory:
		return c.directory(ctx, path, want, got)
	case tree.Regular:
		if got.Size != want.size {
			c.differ(path, FieldSize, want.size, got.Size)
			return nil
		}
		select {
		case c.hashes <- hashJob{path, want, got}:
		case <-ctx.Done():
			return ctx.Err()
		}
	case tree.Symlink:
		if target, err := c.fs.Readlink(got); err != nil {
			c.differ(path, FieldTarget, fmt.Sprintf("%q", want.target), err)
		} else if target != want.target {
			c.differ(path, FieldTarget, fmt.Sprintf("%q", want.target), fmt.Sprintf("%q", target))
		}
	case tree.CharDevice, tree.BlockDevice:
		if got.Major != want.major || got.Minor != want.minor {
			c.differ(path, FieldDevice, fmt.Sprintf("%d:%d", want.major, want.minor), fmt.Sprintf("%d:%d", got.Major, got.Minor))
		}
	}
	return nil
}

// group checks that the same names share an inode on the disk and in the
// image. It returns false if the inode has been compared under another name.
func (c *comparison) group(path string, want *node, got *ext4.Inode) bool {
	if want.typ != tree.Directory && int(got.Links) != want.links {
		c.differ(path, FieldLinks, want.links, got.Links)
	}
	if want.links < 2 && got.Links < 2 {
		return true
	}
	number, again := c.onDisk[want]
	other, taken := c.expected[got.Number]
	switch {
	case again && number == got.Number:
		return false
	case again:
		c.differ(path, FieldLinks, fmt.Sprintf("inode %d as for other names of it", number), fmt.Sprintf("inode %d", got.Number))
		return true
	case taken && other != want:
		c.differ(path, FieldLinks, "an inode of its own", fmt.Sprintf("inode %d that other names have", got.Number))
		return true
	}
	if want.typ != tree.Directory {
		c.onDisk[want], c.expected[got.Number] = got.Number, want
	}
	return true
}

// fields compares the metadata of an inode that every type has.
func (c *comparison) fields(path string, want *node, got *ext4.Inode) {
	if got.Mode != want.mode {
		c.differ(path, FieldMode, fmt.Sprintf("%04o", want.mode), fmt.Sprintf("%04o", got.Mode))
	}
	if got.UID != want.uid {
		c.differ(path, FieldUID, want.uid, got.UID)
	}
	if got.GID != want.gid {
		c.differ(path, FieldGID, want.gid, got.GID)
	}
	if mtime := clamp(want.mtime); got.Mtime != mtime {
		c.differ(path, FieldMtime, formatTime(mtime), formatTime(got.Mtime))
	}
	c.xattrs(path, want, got)
}

func (c *comparison) xattrs(path string, want *node, got *ext4.Inode) {
	list, err := c.fs.Xattrs(got)
	if err != nil {
		c.differ(path, FieldXattr, "readable", err)
		return
	}
	const none = "none"
	have := map[string]string{}
	for _, x := range list {
		have[x.Name] = x.Value
	}
	for _, x := range want.xattrs {
		value, ok := have[x.Name]
		if !ok {
			c.differ(path, FieldXattr+" "+x.Name, fmt.Sprintf("%q", x.Value), none)
		} else if value != x.Value {
			c.differ(path, FieldXattr+" "+x.Name, fmt.Sprintf("%q", x.Value), fmt.Sprintf("%q", value))
		}
		delete(have, x.Name)
	}
	for name, value := range have {
		c.differ(path, FieldXattr+" "+name, none, fmt.Sprintf("%q", value))
	}
}

// directory compares the names in a directory, and their inodes. A missing or
// additional name is one difference, which includes all names below it.
func (c *comparison) directory(ctx context.Context, path string, want *node, got *ext4.Inode) error {
	names := map[string]uint32{}
	err := c.fs.ReadDir(got, func(e ext4.DirEntry) error {
		if e.Name != "." && e.Name != ".." {
			names[e.Name] = e.Inode
		}
		return ctx.Err()
	})
	if err != nil {
		c.differ(path, FieldInode, "readable", err)
		return ctx.Err()
	}
	for _, leaf := range slices.Sorted(maps.Keys(want.names)) {
		child := join(path, leaf)
		number, ok := names[leaf]
		delete(names, leaf)
		if !ok {
			c.differ(child, FieldName, "present", "absent")
			continue
		}
		if err := c.inode(ctx, child, want.names[leaf].node, number); err != nil {
			return err
		}
	}
	for leaf, number := range names {
		if path == "." && leaf == "lost+found" && c.isEmptyDirectory(number) {
			continue // every ext4 file system has one
		}
		c.differ(join(path, leaf), FieldName, "absent", "present")
	}
	return nil
}

func (c *comparison) isEmptyDirectory(number uint32) bool {
	in, err := c.fs.Inode(number)
	if err != nil {
		return false
	}
	names := 0
	err = c.fs.ReadDir(in, func(ext4.DirEntry) error {
		names++
		return nil
	})
	return err == nil && names == 2
}

func join(dir, leaf string) string {
	if dir == "." {
		return leaf
	}
	return dir + "/" + leaf
}

// content compares the content of a file by its hash.
func (c *comparison) content(ctx context.Context, job hashJob) error {
	want := fmt.Sprintf("sha256:%x", job.want.sum)
	f, err := c.fs.Data(job.got)
	if err != nil {
		c.differ(job.path, FieldContent, want, err)
		return nil
	}
	hash := sha256.New()
	if err := hashFile(ctx, hash, f); err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.differ(job.path, FieldContent, want, err)
		return nil
	}
	if got := fmt.Sprintf("sha256:%x", hash.Sum(nil)); got != want {
		c.differ(job.path, FieldContent, want, got)
	}
	return nil
}

// hashFile writes the content of a file to the hash. It reads only the runs
// and writes zeros for the holes.
func hashFile(ctx context.Context, to io.Writer, f *ext4.File) error {
	buf, zeros := make([]byte, 1<<18), make([]byte, 1<<16)
	at := int64(0)
	hole := func(end int64) error {
		for ; at < end && ctx.Err() == nil; at += min(end-at, int64(len(zeros))) {
			if _, err := to.Write(zeros[:min(end-at, int64(len(zeros)))]); err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	for _, r := range f.Runs() {
		if err := hole(r.Offset); err != nil {
			return err
		}
		for end := r.Offset + r.Length; at < end; {
			n, err := f.ReadAt(buf[:min(end-at, int64(len(buf)))], at)
			if n == 0 && err != nil {
				return err
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return err
			}
			at += int64(n)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return hole(f.Size())
}

// clamp returns the nearest time that ext4 can store, with 32 bits of seconds
// and 2 bits of epoch. If the time changes, its nanoseconds become zero, as in
// the kernel (timestamp_truncate in linux/fs/inode.c).
func clamp(t tree.Time) tree.Time {
	const earliest, latest = math.MinInt32, math.MaxInt32 + 3<<32
	switch {
	case t.Sec < earliest:
		return tree.Time{Sec: earliest}
	case t.Sec > latest:
		return tree.Time{Sec: latest}
	}
	return t
}

func formatTime(t tree.Time) string { return fmt.Sprintf("%d.%09d", t.Sec, t.Nsec) }
