package daemon

import (
	"context"
	"log/slog"
	"sync"
)

// A watcher waits for the end of each supervisor while the daemon runs. It corrects
// the record of the machine and releases its resources if the supervisor was killed.
type watcher struct {
	machines machines
	restart  func(ctx context.Context, id string) // boots a machine again; see starter.restartByPolicy
	quit     *quitSignal
	log      *slog.Logger
	started  chan string // IDs of machines that run
}

// watch makes the watcher watch a machine, unless the daemon shuts down.
func (w *watcher) watch(id string) {
	select {
	case w.started <- id:
	case <-w.quit.requested:
	}
}

// run watches machines until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var watches sync.WaitGroup
	defer watches.Wait()
	watched := map[string]bool{} // true if the machine was started again since the watch began
	done := make(chan string)
	begin := func(id string) {
		watched[id] = false
		watches.Go(func() {
			w.awaitEnd(ctx, id)
			select {
			case done <- id:
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
		case id := <-done:
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

// awaitEnd waits until the machine's supervisor has ended, and repairs the record
// and the resources of the machine if the supervisor could not do it. If the
// machine's policy requires it, awaitEnd boots the machine again.
func (w *watcher) awaitEnd(ctx context.Context, id string) {
	restart := false
	err := w.machines.WaitGone(ctx, id)
	if err == nil {
		restart, err = w.machines.RepairMachine(ctx, id)
	}
	if err != nil && ctx.Err() == nil {
		w.log.Error("repair machine", "machine", id, "error", err)
	}
	if restart {
		w.restart(ctx, id)
	}
}
