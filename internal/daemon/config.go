package daemon

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine"
)

// Config says what a daemon serves. Machines, Images, Kernels and Supervisor
// are needed.
type Config struct {
	Machines   machines // a *vm.Store
	Images     *store.Store
	Kernels    *kernel.Store
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
	Create(ctx context.Context, o machine.Options) (rec *machine.Record, warnings []string, err error)
	Machines() (records []*machine.Record, damaged []error, err error)
	Find(ref string) (*machine.Record, error)
	Rename(ctx context.Context, id, name string) error
	Remove(ctx context.Context, id string) error
	Prune(ctx context.Context, keep func(*machine.Record) bool) (ids []string, freed int64, err error)
	Reconcile(ctx context.Context) (machine.Report, error)
	FindID(ref string) (string, error)
	Settle(ctx context.Context, id string) (restart bool, err error)
	Folder(id string) string
	Runtime() string
}

type life interface {
	Run(ctx context.Context, o machine.Options, l machine.Launch) (*machine.Record, []string, *frames.Conn, error)
	Start(ctx context.Context, id string, l machine.Launch) (*frames.Conn, error)
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id, signal string) error
	Wait(ctx context.Context, id string) (api.Exit, error)
	WaitGone(ctx context.Context, id string) error
	Supervisor(rec *machine.Record) int
}

type streams interface {
	Exec(ctx context.Context, id string, r api.ExecRequest) (*frames.Conn, error)
	Attach(ctx context.Context, id string, r api.AttachRequest) (*frames.Conn, error)
	Archive(ctx context.Context, id string, r api.ArchiveRequest) (*frames.Conn, error)
	Dial(ctx context.Context, rec *machine.Record) (net.Conn, error)
}

type reports interface {
	Stats(ctx context.Context, id string) (api.Stats, error)
	Logs(ctx context.Context, id string, o machine.LogOptions, emit func(api.LogLine) error) error
}
