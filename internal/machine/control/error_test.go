package control_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
)

// TestWireErrorCodes checks the code of each error, wrapped as the packages wrap it.
func TestWireErrorCodes(t *testing.T) {
	for _, row := range []struct {
		err      error
		code     api.ErrorCode
		exitCode int
	}{
		{spec.Errorf("memory of 1 MiB"), api.CodeInvalid, 0},
		{record.ErrNotFound, api.CodeNotFound, 0},
		{store.ErrNotFound, api.CodeNoImage, 0},
		{kernel.ErrNotFound, api.CodeNoKernel, 0},
		{&bootplan.NoCommandError{Program: "/x", Why: "missing"}, api.CodeNoCommand, 127},
		{&bootplan.NoCommandError{Program: "/x", Why: "is a directory", Found: true}, api.CodeNoCommand, 126},
		{bootplan.ErrNotBootable, api.CodeNotBootable, 0},
		{record.ErrNameTaken, api.CodeNameTaken, 0},
		{record.ErrTooMany, api.CodeTooMany, 0},
		{record.ErrNewer, api.CodeVersion, 0},
		{record.ErrRunning, api.CodeRunning, 0},
		{record.ErrNotRunning, api.CodeNotRunning, 0},
		{vmm.ErrMissing, api.CodeMissing, 0},
		{&disk.DriverError{Driver: spec.DM, Why: "needs root"}, api.CodeDriver, 0},
		{&disk.SpaceError{Dir: "/", Need: 2, Free: 1}, api.CodeNoSpace, 0},
		{unix.ENOSPC, api.CodeNoSpace, 0},
		{unix.EDQUOT, api.CodeNoSpace, 0},
		{context.Canceled, api.CodeFailed, 0},
		{errors.New("another error"), api.CodeFailed, 0},
	} {
		err := fmt.Errorf("make machine: %w", row.err)
		got := control.WireError(err)
		if got.Code != row.code || got.ExitCode != row.exitCode || got.Message != err.Error() {
			t.Errorf("%v: %+v, want code %s and exit code %d", err, got, row.code, row.exitCode)
		}
	}
}

// TestWireErrorKeepsASentError checks that an error of a supervisor passes unchanged.
func TestWireErrorKeepsASentError(t *testing.T) {
	sent := &api.Error{Code: api.CodeNoCommand, Message: "no such file", ExitCode: 127}
	if got := control.WireError(fmt.Errorf("start machine: %w", sent)); got != sent {
		t.Errorf("WireError = %+v, want the sent error", got)
	}
}
