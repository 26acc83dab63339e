package daemon

import (
	"context"
	"log/slog"
	"sync"
)

// A watcher settles the machines whose supervisors die while the daemon runs.
type watcher struct {
	machines machines
	revive   func(ctx context.Context, id string) // boots a machine whose policy wants it to run
	log      *slog.Logger
	started  chan string // IDs of machines that run
}

func newWatcher(m machines, log *slog.Logger, revive func(context.Context, string)) *watcher {
	return &watcher{machines: m, revive: revive, log: log, started: make(chan string)}
}

// watch has the machine watched from now on. It gives up when ended is closed.
func (w *watcher) watch(id string, ended <-chan struct{}) {
	select {
	case w.started <- id:
	case <-ended:
	}
}

// run watches until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var watches sync.WaitGroup
	defer watches.Wait()
	watched := map[string]bool{} // true: it has been started again meanwhile
	settled := make(chan string)
	begin := func(id string) {
		watched[id] = false
		watches.Go(func() {
			w.settle(ctx, id)
			select {
			case settled <- id:
			case <-ctx.Done():
			}
		})
	}
	for {
		select {
		case id := <-w.started:
			if _, ok := watched[id]; ok {
				watched[id] = true
			} else {
				begin(id)
			}
		case id := <-settled:
			again := watched[id]
			delete(watched, id)
			if again {
				begin(id)
			}
		case <-ctx.Done():
			return
		}
	}
}

// settle returns when the machine's supervisor has gone and what it left
// behind is dealt with.
func (w *watcher) settle(ctx context.Context, id string) {
	restart := false
	err := w.machines.WaitGone(ctx, id)
	if err == nil {
		restart, err = w.machines.Settle(ctx, id)
	}
	if err != nil && ctx.Err() == nil {
		w.log.Error("settle machine", "machine", id, "error", err)
	}
	if restart {
		w.revive(ctx, id)
	}
}
