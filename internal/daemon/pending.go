package daemon

import (
	"context"
	"errors"
	"path/filepath"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/digest"
	"github.com/banger-vm/banger/internal/kernelcat"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/stream"
	"github.com/banger-vm/banger/internal/vm"
	"github.com/banger-vm/banger/internal/vmm"
)

// This file stands in for what vm does not have yet, and goes with it.

type report = struct{}

// Pending is s with the methods that it will have.
func Pending(s *vm.Store, data, runtime string) machines { //nolint:revive // see above
	return &pending{s, data, runtime}
}

type pending struct {
	*vm.Store
	data, runtime string
}

var errPending = &api.Error{Code: api.CodeMissing, Message: "not built yet"}

func (*pending) Create(context.Context, vm.Options) (*vm.Record, []string, error) {
	return nil, nil, errPending
}
func (*pending) Rename(context.Context, string, string) error { return errPending }
func (p *pending) Remove(ctx context.Context, id string) error {
	rec, err := p.Find(id)
	if err != nil {
		return err
	}
	return p.Store.Remove(ctx, rec)
}
func (*pending) Prune(context.Context, func(*vm.Record) bool) ([]string, int64, error) {
	return nil, 0, nil
}
func (p *pending) Reconcile(ctx context.Context) (report, error) { return report{}, p.Sweep(ctx) }
func (*pending) Settle(context.Context, string) error            { return nil }
func (p *pending) Folder(id string) string                       { return filepath.Join(p.data, "machines", id) }
func (p *pending) Runtime() string                               { return p.runtime }
func (*pending) Start(context.Context, string, vm.Launch) (*stream.Conn, error) {
	return nil, errPending
}
func (*pending) Stop(context.Context, string, time.Duration) error      { return errPending }
func (*pending) Kill(context.Context, string, string) error             { return errPending }
func (*pending) Wait(context.Context, string) (api.Exit, error)         { return api.Exit{}, errPending }
func (*pending) WaitGone(ctx context.Context, _ string) error           { <-ctx.Done(); return ctx.Err() }
func (*pending) Stats(context.Context, string) (s api.Stats, err error) { return s, errPending }
func (*pending) Exec(context.Context, string, api.ExecRequest) (*stream.Conn, error) {
	return nil, errPending
}
func (*pending) Attach(context.Context, string, api.AttachRequest) (*stream.Conn, error) {
	return nil, errPending
}
func (*pending) Archive(context.Context, string, api.ArchiveRequest) (*stream.Conn, error) {
	return nil, errPending
}
func (*pending) Logs(context.Context, string, vm.LogOptions, func(api.LogLine) error) error {
	return errPending
}

// complete sets what vm.Options will have.
func complete(*vm.Options, digest.Digest, bool) {}

// wireError is vm.WireError.
func wireError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	code, exit := api.CodeFailed, 0
	if input, ok := errors.AsType[*vm.InputError](err); ok {
		return &api.Error{Code: api.CodeInvalid, Message: input.Error()}
	}
	if missing, ok := errors.AsType[*vm.NoCommandError](err); ok {
		return &api.Error{Code: api.CodeNoCommand, Message: err.Error(), ExitCode: missing.ExitCode()}
	}
	for _, row := range []struct {
		target error
		code   api.ErrorCode
	}{
		{vm.ErrNotFound, api.CodeNotFound}, {vm.ErrNameTaken, api.CodeNameTaken}, {vm.ErrRunning, api.CodeRunning},
		{vm.ErrNotRunning, api.CodeNotRunning}, {vm.ErrNotBootable, api.CodeNotBootable}, {store.ErrNotFound, api.CodeNoImage},
		{kernelcat.ErrNotFound, api.CodeNoKernel}, {vmm.ErrMissing, api.CodeMissing}, {vm.ErrNoOverlay, api.CodeMissing},
		{syscall.ENOSPC, api.CodeNoSpace}, {syscall.EDQUOT, api.CodeNoSpace},
	} {
		if errors.Is(err, row.target) {
			code = row.code
		}
	}
	return &api.Error{Code: code, Message: err.Error(), ExitCode: exit}
}
