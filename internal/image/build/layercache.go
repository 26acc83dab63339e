package build

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/base/digest"
	"github.com/banger-vm/banger/internal/image/layer"
)

// A layerCache keeps the tables and spools of layers by diffID, on file
// systems where disks share extents with them: there a spool costs nothing
// as long as a disk is made of it, and a disk nothing beside its spools.
// Elsewhere it would double what images take, and there is none.
type layerCache struct{ dir string }

// LayerCacheDir is where the layers of a cache folder lie. The name has the
// version of their format, so that others are not looked at.
func LayerCacheDir(cacheDir string) string {
	return filepath.Join(cacheDir, "layers", fmt.Sprintf("v%d", layer.TableVersion))
}

// openLayerCache returns the cache, or nil where the file system of scratch
// does not share extents with it.
func openLayerCache(cacheDir, scratch string) (*layerCache, error) {
	dir := LayerCacheDir(cacheDir)
	if !isReflink(scratch) {
		return nil, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open layer cache: %w", err)
	}
	shared, err := sharesExtents(dir, scratch)
	if err != nil || !shared {
		return nil, err
	}
	return &layerCache{dir}, nil
}

// isReflink is a quick look at the type of the file system, so that the
// usual ext4 or tmpfs is not probed.
func isReflink(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	switch uint32(st.Type) { // the width of Type differs between architectures
	case unix.BTRFS_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return true
	}
	return false
}

// sharesExtents tries it: xfs can be made without.
func sharesExtents(cache, scratch string) (_ bool, err error) {
	from, err := os.CreateTemp(scratch, "probe-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, from.Close(), os.Remove(from.Name())) }()
	to, err := os.CreateTemp(cache, ".probe-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, to.Close(), os.Remove(to.Name())) }()
	if _, err := from.Write(make([]byte, 1)); err != nil {
		return false, err
	}
	return unix.IoctlFileClone(int(to.Fd()), int(from.Fd())) == nil, nil
}

func (c *layerCache) paths(id digest.DiffID) (table, spool string) {
	base := filepath.Join(c.dir, id.Hex())
	return base + ".table", base + ".spool"
}

// load opens a layer that is cached. A table that is damaged, or that does
// not fit its spool, is taken for missing and made again.
func (c *layerCache) load(u *unpacked) (found bool, err error) {
	id := u.layer.DiffID()
	if c == nil || id == "" {
		return false, nil
	}
	tablePath, spoolPath := c.paths(id)
	table, err := os.Open(tablePath)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	spool, err := os.Open(spoolPath)
	if err == nil {
		var info layer.Info
		if info, err = tableInfo(table); err == nil && fits(spool, info, id) {
			u.info, u.table, u.file, u.bodies = info, table, spool, spool
			return true, nil
		}
		spool.Close()
	}
	table.Close()
	return false, nil
}

// tableInfo reads a table to its end.
func tableInfo(f *os.File) (layer.Info, error) {
	var info layer.Info
	err := eachEntry(f, &info, nil)
	return info, err
}

func fits(spool *os.File, info layer.Info, id digest.DiffID) bool {
	st, err := spool.Stat()
	return err == nil && st.Size() == info.SpoolBytes && info.DiffID == id
}

// keep puts a layer that was unpacked into the scratch folder into the cache.
// The files stay open; the table comes last, since load looks for it first.
func (c *layerCache) keep(u *unpacked) error {
	if c == nil || u.file == nil || u.info.DiffID == "" {
		return nil
	}
	table, spool := c.paths(u.info.DiffID)
	for _, f := range []struct {
		file *os.File
		path string
	}{{u.file, spool}, {u.table, table}} {
		if err := atomicfile.Commit(f.file, f.path); err != nil {
			return fmt.Errorf("cache layer: %w", err)
		}
	}
	return nil
}

// PruneLayers removes the cached layers that keep does not want, and those of
// other versions, and returns how many bytes they took.
func PruneLayers(cacheDir string, keep func(digest.DiffID) bool) (freed int64, err error) {
	top := filepath.Dir(LayerCacheDir(cacheDir))
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		hex, _, _ := strings.Cut(filepath.Base(path), ".")
		if filepath.Dir(path) == LayerCacheDir(cacheDir) && keep(digest.DiffID("sha256:"+hex)) {
			return nil
		}
		if info, err := d.Info(); err == nil {
			freed += info.Size()
		}
		return os.Remove(path)
	})
	return freed, err
}
