package control

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/disk"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/spec"
	"github.com/banger-vm/banger/internal/vmm"
)

// WireError returns err as the protocol sends it. An error that came from a
// supervisor is returned unchanged.
func WireError(err error) *api.Error {
	if sent, ok := errors.AsType[*api.Error](err); ok {
		return sent
	}
	out := &api.Error{Code: errorCode(err), Message: err.Error()}
	if missing, ok := errors.AsType[*bootplan.NoCommandError](err); ok {
		out.Code, out.ExitCode = api.CodeNoCommand, missing.ExitCode()
	}
	return out
}

// errorCode returns the code for err, or api.CodeFailed if it has no code of its own.
func errorCode(err error) api.ErrorCode {
	if _, ok := errors.AsType[*spec.InputError](err); ok {
		return api.CodeInvalid
	}
	if _, ok := errors.AsType[*disk.DriverError](err); ok {
		return api.CodeDriver
	}
	for _, row := range []struct {
		err  error
		code api.ErrorCode
	}{
		{record.ErrNotFound, api.CodeNotFound},
		{store.ErrNotFound, api.CodeNoImage},
		{kernel.ErrNotFound, api.CodeNoKernel},
		{bootplan.ErrNotBootable, api.CodeNotBootable},
		{record.ErrNameTaken, api.CodeNameTaken},
		{record.ErrTooMany, api.CodeTooMany},
		{record.ErrNewer, api.CodeVersion},
		{record.ErrRunning, api.CodeRunning},
		{record.ErrNotRunning, api.CodeNotRunning},
		{vmm.ErrMissing, api.CodeMissing},
		{unix.ENOSPC, api.CodeNoSpace},
		{unix.EDQUOT, api.CodeNoSpace},
	} {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	return api.CodeFailed
}
