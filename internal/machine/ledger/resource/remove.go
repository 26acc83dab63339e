package resource

import (
	"context"
	"fmt"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// Remove removes the resource of e and returns when it no longer exists. It
// returns nil if the resource does not exist. If its name or number belongs to a
// resource of another owner, Remove leaves that one alone and returns nil.
func Remove(ctx context.Context, e ledger.Entry) error {
	if _, ok := ledger.ParseOwner(string(e.Owner)); !ok {
		return fmt.Errorf("owner %q: want a machine ID, '-' and 8 hexadecimal digits", e.Owner)
	}
	if e.Boot != "" && e.Kind != ledger.Socket && e.Kind != ledger.Disk && e.Kind != ledger.Folder {
		boot, err := BootID()
		if err != nil || boot != e.Boot {
			return err // the resource ended with its boot
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
