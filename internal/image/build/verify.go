package build

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/banger-vm/banger/internal/image/pull"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/image/tree"
	"github.com/banger-vm/banger/internal/image/verify"
)

// Verify reads the layers of source again, and compares every inode of the disk at
// path with them. It shares no code with the builders. It uses the options Pull,
// Paths, MaxInodes and MaxUnpacked.
func Verify(ctx context.Context, source, path string, o Options) (_ *verify.Report, err error) {
	disk, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	img, err := resolve(ctx, source, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, img.Close()) }()
	var layers []verify.Layer
	for _, l := range img.Layers {
		layers = append(layers, verify.Layer{Digest: string(l.Digest()), Open: l.Open})
	}
	return verify.Verify(ctx, layers, disk, info.Size(), verify.Options{
		Created: createdTime(img), Paths: o.Paths, MaxInodes: o.MaxInodes, MaxBytes: o.MaxUnpacked, MaxWindow: uint64(max(o.Pull.MaxWindow, 0)),
	})
}

// VerifyImage is Verify for an image of the store. It reads the layers by the
// image's digest, because its tag may have moved since the build.
func VerifyImage(ctx context.Context, s *store.Store, img *store.Image, o Options) (*verify.Report, error) {
	var err error
	if o.Paths, err = tree.ParsePaths(img.Disk.Paths); err != nil {
		return nil, fmt.Errorf("image record: %w", err)
	}
	o.Pull.Platform, o.Pull.AnyPlatform = img.Platform, true // the index that gave the platform is not read again
	return Verify(ctx, pull.AtDigest(img.Source, img.ID), s.DiskPath(img), o)
}
