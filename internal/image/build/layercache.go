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

// A layerCache stores the tables and spools of layers by diffID. It exists only on
// file systems where disks share extents with spools, so that the content is stored
// once. On other file systems the spools would double the size of the images.
type layerCache struct{ dir string }

// LayerCacheDir returns the folder of the layers in a cache folder. Its name has
// the version of the format, so that the package never reads other versions.
func LayerCacheDir(cacheDir string) string {
	return filepath.Join(cacheDir, "layers", fmt.Sprintf("v%d", layer.TableVersion))
}

// openLayerCache returns the cache, or nil if the file system of scratch does not
// share extents with it.
func openLayerCache(cacheDir, scratch string) (*layerCache, error) {
	dir := LayerCacheDir(cacheDir)
	if !mayShareExtents(scratch) {
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

// mayShareExtents reports whether the type of the file system supports shared
// extents. It saves the probe on common file systems such as ext4 and tmpfs.
func mayShareExtents(path string) bool {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return false
	}
	switch uint32(st.Type) { // Type's size differs between architectures
	case unix.BTRFS_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.OVERLAYFS_SUPER_MAGIC:
		return true
	}
	return false
}

// sharesExtents clones a file from scratch to cache, and reports whether that
// worked. The type alone is not enough: xfs can be created without reflinks.
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

// load opens a cached layer. It returns false if the layer is missing, if its table
// is damaged, or if the table does not match its spool. The build then unpacks the
// layer again.
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
		if info, err = tableInfo(table); err == nil && matchesSpool(spool, info, id) {
			u.info, u.table, u.file, u.bodies = info, table, spool, spool
			return true, nil
		}
		spool.Close()
	}
	table.Close()
	return false, nil
}

// tableInfo reads all of a table, and returns its info.
func tableInfo(f *os.File) (layer.Info, error) {
	var info layer.Info
	err := eachEntry(f, &info, nil)
	return info, err
}

// matchesSpool reports whether the table with info is that of layer id and of spool.
func matchesSpool(spool *os.File, info layer.Info, id digest.DiffID) bool {
	st, err := spool.Stat()
	return err == nil && st.Size() == info.SpoolBytes && info.DiffID == id
}

// add moves a layer from the scratch folder into the cache. Its files stay open. The
// table is the last to move, because load opens it first.
func (c *layerCache) add(u *unpacked) error {
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

// PruneLayers removes the cached layers for which keep returns false, and all layers
// of other versions. It returns the bytes freed.
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
