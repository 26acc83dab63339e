package daemon

import (
	"context"
	"io"
	"log/slog"
	"net"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/image/store"
	"github.com/banger-vm/banger/internal/kernel"
	"github.com/banger-vm/banger/internal/machine"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
)

// Config is the configuration of a daemon. Machines, Images, Kernels, Supervisor and
// DataRoot are required.
type Config struct {
	Machines   machines // a *machine.Store
	Images     *store.Store
	Kernels    *kernel.Store
	Supervisor []string      // command line of a supervisor, without the machine's ID at its end
	Version    string        // of the program
	DataRoot   string        // the data folder, which has at most one daemon
	Idle       time.Duration // ends the daemon after this time without a request; 0 never ends it
	Log        *slog.Logger  // nil discards the log

	// Connections is the number of connections that may be open at once; 0 stands
	// for defaultConnections.
	Connections int
}

const defaultConnections = 256

// complete returns the configuration with its defaults.
func (c Config) complete() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Connections == 0 {
		c.Connections = defaultConnections
	}
	return c
}

// machines has the methods of machine.Store that the daemon uses. The tests
// implement it without processes.
type machines interface {
	records
	processes
	streams
	reports
}

type records interface {
	Create(ctx context.Context, o machine.Options) (rec *record.Record, warnings []string, err error)
	Machines() (records []*record.Record, damaged []error, err error)
	Find(ref string) (*record.Record, error)
	Rename(ctx context.Context, id, name string) error
	Remove(ctx context.Context, id string) error
	Prune(ctx context.Context, keep func(*record.Record) bool) (ids []string, freed int64, err error)
	Reconcile(ctx context.Context) (repair.Report, error)
	FindID(ref string) (string, error)
	RepairMachine(ctx context.Context, id string) (restart bool, err error)
	Folder(id string) string
	Runtime() string
}

type processes interface {
	Run(ctx context.Context, o machine.Options, l control.Launch) (*record.Record, []string, *frames.Conn, error)
	Start(ctx context.Context, id string, l control.Launch) (*frames.Conn, error)
	Stop(ctx context.Context, id string, grace time.Duration) error
	Kill(ctx context.Context, id, signal string) error
	Wait(ctx context.Context, id string) (api.Exit, error)
	WaitGone(ctx context.Context, id string) error
	SupervisorPID(rec *record.Record) int
	Paused(ctx context.Context, id string) string
}

type streams interface {
	Exec(ctx context.Context, id string, r api.ExecRequest) (*frames.Conn, error)
	Attach(ctx context.Context, id string, r api.AttachRequest) (*frames.Conn, error)
	Archive(ctx context.Context, id string, r api.ArchiveRequest) (*frames.Conn, error)
	HoldFiles(ctx context.Context, id string) (io.Closer, error)
	Dial(ctx context.Context, rec *record.Record) (net.Conn, error)
}

type reports interface {
	Stats(ctx context.Context, id string) (api.Stats, error)
	Logs(ctx context.Context, id string, o machine.LogOptions, emit func(api.LogLine) error) error
}
