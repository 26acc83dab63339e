package resource

import (
	"context"
	"fmt"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// Remove gives the resource of e back, and returns when it is gone. That it
// was gone before, or never made, is no error; neither is that its name or
// number is somebody else's by now, which is then not touched.
func Remove(ctx context.Context, e ledger.Entry) error {
	if _, ok := ledger.ParseOwner(string(e.Owner)); !ok {
		return fmt.Errorf("owner %q is not one", e.Owner)
	}
	if e.Boot != "" && e.Kind != ledger.Socket && e.Kind != ledger.Disk && e.Kind != ledger.Folder {
		boot, err := BootID()
		if err != nil || boot != e.Boot {
			return err // it ended with the boot
		}
	}
	switch e.Kind {
	case ledger.Process:
		return removeProcess(ctx, &e)
	case ledger.Tap:
		return removeTap(&e)
	case ledger.Table:
		return removeTable(&e)
	case ledger.DM:
		return removeDM(ctx, &e)
	case ledger.Loop:
		return removeLoop(ctx, &e)
	case ledger.Socket, ledger.Disk, ledger.Folder:
		return removeFile(&e)
	}
	return fmt.Errorf("kind of resource %q is unknown", e.Kind)
}
