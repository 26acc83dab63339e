package vm

import (
	"context"
	"os"
	"path/filepath"

	"github.com/banger-vm/banger/internal/ledger"
	"github.com/banger-vm/banger/internal/ledger/resource"
)

// diskOptions say what a machine's disk is to be like.
type diskOptions struct {
	Size     int64
	ReadOnly bool
	Driver   Driver
}

// makeDisk notes the files that cloneDisk may make.
func makeDisk(ctx context.Context, mk resource.Maker, image, dir string, o diskOptions) (Disk, error) {
	var noted, unused []ledger.Entry
	for _, name := range []string{baseFile, cloneFile, overlayFile} {
		path := filepath.Join(dir, name)
		noted = append(noted, ledger.Entry{Kind: ledger.Disk, Name: path, Path: path, Owner: mk.Owner})
	}
	if err := mk.Ledger.Note(noted...); err != nil {
		return Disk{}, err
	}
	d, err := cloneDisk(ctx, image, dir, o.Size, o.ReadOnly)
	if err != nil {
		return Disk{}, err
	}
	for _, e := range noted {
		if _, err := os.Lstat(e.Path); err != nil {
			unused = append(unused, e)
		}
	}
	return d, mk.Ledger.Strike(unused...)
}
