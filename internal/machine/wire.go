package machine

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/vmm"
)

// WireError is err as a client is told of it. One that a supervisor has told
// of stays as it is.
func WireError(err error) *api.Error {
	if told, ok := errors.AsType[*api.Error](err); ok {
		return told
	}
	out := &api.Error{Code: errorCode(err), Message: err.Error()}
	if missing, ok := errors.AsType[*NoCommandError](err); ok {
		out.Code, out.ExitCode = api.CodeNoCommand, missing.ExitCode()
	}
	return out
}

func errorCode(err error) api.ErrorCode {
	if _, ok := errors.AsType[*InputError](err); ok {
		return api.CodeInvalid
	}
	if _, ok := errors.AsType[*DriverError](err); ok {
		return api.CodeDriver
	}
	for _, row := range []struct {
		err  error
		code api.ErrorCode
	}{
		{ErrNotFound, api.CodeNotFound},
		{store.ErrNotFound, api.CodeNoImage},
		{kernel.ErrNotFound, api.CodeNoKernel},
		{ErrNotBootable, api.CodeNotBootable},
		{ErrNameTaken, api.CodeNameTaken},
		{ErrTooMany, api.CodeTooMany},
		{ErrNewer, api.CodeVersion},
		{ErrRunning, api.CodeRunning},
		{ErrNotRunning, api.CodeNotRunning},
		{vmm.ErrMissing, api.CodeMissing},
		{unix.ENOSPC, api.CodeNoSpace},
		{unix.EDQUOT, api.CodeNoSpace},
		{context.Canceled, api.CodeFailed},
	} {
		if errors.Is(err, row.err) {
			return row.code
		}
	}
	return api.CodeFailed
}
