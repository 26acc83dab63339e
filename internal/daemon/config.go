package daemon

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/kernelcat"
	"github.com/banger-vm/banger/internal/store"
	"github.com/banger-vm/banger/internal/stream"
	"github.com/banger-vm/banger/internal/vm"
)

// Config says what a daemon serves. Machines, Images, Kernels and Supervisor
// are needed.
type Config struct {
	Machines   machines // a *vm.Store
	Images     *store.Store
	Kernels    *kernelcat.Store
	Supervisor []string // the command line to which a machine's ID is added
	Version    string   // of the program
	DataRoot   string   // told in api.Info
	// Idle is how long the daemon stays when nothing is asked of it; 0 is for
	// ever.
	Idle time.Duration
	Log  *slog.Logger // nil drops what there is to say
	// Connections bounds those that are open at once; 0 is DefaultConnections.
	Connections int
}

// DefaultConnections is how many connections are served at once.
const DefaultConnections = 256

func (c Config) complete() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Connections == 0 {
		c.Connections = DefaultConnections
	}
	return c
}

// machines is vm.Store as the daemon uses it. The tests have another that
// starts nothing.
type machines interface {
	records
	life
	streams
	reports
}

type records interface {
	Create(ctx context.Context, o vm.Options) (rec *vm.Record, warnings []string, err error)
	Machines() (records []*vm.Record, damaged []error, err error)
	Find(ref string) (*vm.Record, error)
	Rename(ctx context.Context, id, name string) error
	Remove(ctx context.Context, id string) error
	Prune(ctx context.Context, keep func(*vm.Record) bool) (ids []string, freed int64, err error)
	Reconcile(ctx context.Context) (vm.Report, error)
	FindID(ref string) (string, error)
	Settle(ctx context.Context, id string) (restart bool, err error)
	Folder(id string) string
	Runtime() string
}

type life interface {
	Run(ctx context.Context, o vm.Options, l vm.Launch) (*vm.Record, []string, *stream.Conn, error)
	Start(ctx context.Context, id string, l vm.Launch) (*stream.Conn, error)
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id, signal string) error
	Wait(ctx context.Context, id string) (api.Exit, error)
	WaitGone(ctx context.Context, id string) error
	Supervisor(rec *vm.Record) int
}

type streams interface {
	Exec(ctx context.Context, id string, r api.ExecRequest) (*stream.Conn, error)
	Attach(ctx context.Context, id string, r api.AttachRequest) (*stream.Conn, error)
	Archive(ctx context.Context, id string, r api.ArchiveRequest) (*stream.Conn, error)
	Dial(ctx context.Context, rec *vm.Record) (net.Conn, error)
}

type reports interface {
	Stats(ctx context.Context, id string) (api.Stats, error)
	Logs(ctx context.Context, id string, o vm.LogOptions, emit func(api.LogLine) error) error
}
