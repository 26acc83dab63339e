package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/banger-vm/banger/api"
)

// Bounds of a connection.
const (
	headerTime = 10 * time.Second // for a request's header to come
	quietTime  = time.Minute      // between two requests
	maxHeader  = 64 << 10         // bytes
)

// endTime is how long the requests that are open have to end with the daemon.
const endTime = 5 * time.Second

// Serve is the daemon's life: it listens in the folder of c.Machines until
// ctx ends, a client asks for its end, or it has been idle for c.Idle. Open
// requests and streams are cut off then; machines go on. The error is
// ErrServed when another daemon serves the same machines.
func Serve(ctx context.Context, c Config) error {
	c = c.complete()
	listener, lock, err := Listen(ctx, c.Machines.Runtime())
	if err != nil {
		return err
	}
	defer lock.Close()
	c.Log.Info("daemon serves", "version", c.Version, "pid", os.Getpid(), "socket", SocketPath(c.Machines.Runtime()), "idle", c.Idle)
	s := newServer(c)
	return s.serveOn(ctx, listenPeers(listener, c.Connections, c.Log))
}

// serveOn serves until the daemon is to end, and closes the listener.
func (s *server) serveOn(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var own sync.WaitGroup
	defer own.Wait()
	defer cancel()
	own.Go(func() { s.watcher.run(ctx) })
	own.Go(func() { s.reconcile(ctx) })
	h := &http.Server{
		Handler: s, ReadHeaderTimeout: headerTime, IdleTimeout: quietTime, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- h.Serve(listener) }()
	var failed error
	why := "asked to"
	select {
	case <-ctx.Done():
		why = "signal"
	case <-s.ended:
	case <-s.idle.expired:
		why = "idle"
	case failed = <-served:
		why = failed.Error()
	}
	s.Log.Info("daemon ends", "why", why)
	s.asked()
	return errors.Join(failed, s.end(h, cancel))
}

// end lets the answers that are being written go out, and cuts the rest off.
func (s *server) end(h *http.Server, cancel context.CancelFunc) error {
	limited, stop := context.WithTimeout(context.Background(), endTime)
	defer stop()
	cancel()
	err := h.Shutdown(limited)
	if errors.Is(err, context.DeadlineExceeded) {
		err = h.Close()
	}
	streams := make(chan struct{})
	go func() {
		defer close(streams)
		s.open.Wait()
	}()
	select {
	case <-streams:
	case <-limited.Done():
		s.Log.Warn("daemon ends with requests that are still open")
	}
	return err
}

// reconcile brings the machines in line with the host before any request is
// answered, and then boots those that are to run.
func (s *server) reconcile(ctx context.Context) {
	begin := time.Now()
	done, err := s.Machines.Reconcile(ctx)
	for _, f := range done.Machines {
		s.Log.Warn("machine was not in order", "finding", f)
	}
	s.Log.Info("machines reconciled", "adopted", len(done.Adopted), "restart", len(done.Restart),
		"leftovers", len(done.Leftovers), "took", time.Since(begin).Round(time.Millisecond))
	if err != nil {
		s.Log.Error("reconcile machines", "error", err)
	}
	close(s.settled)
	for _, id := range done.Adopted {
		s.watcher.watch(id, s.ended)
	}
	var boots sync.WaitGroup
	defer boots.Wait()
	places := make(chan struct{}, runtime.NumCPU())
	for _, id := range done.Restart {
		places <- struct{}{}
		boots.Go(func() {
			defer func() { <-places }()
			s.revive(ctx, id)
		})
	}
}

// revive boots a machine whose policy says that it is to run.
func (s *server) revive(ctx context.Context, id string) {
	s.idle.begin()
	defer s.idle.end()
	if err := s.startAgain(ctx, id); err != nil && ctx.Err() == nil {
		s.Log.Error("start machine again", "machine", id, "error", err)
	}
}

// startAgain leaves alone what a command before it in the gate has stopped,
// removed or started.
func (s *server) startAgain(ctx context.Context, id string) error {
	unlock, err := s.locks.lock(ctx, lockRequest{id, id, "start", 0})
	if err != nil {
		return err
	}
	defer unlock()
	if wanted, err := s.Machines.Settle(ctx, id); err != nil || !wanted {
		return err
	}
	l, err := s.launch(api.StartRequest{})
	if err != nil {
		return err
	}
	supervisor, err := s.Machines.Start(ctx, id, l)
	if err != nil {
		return err
	}
	return s.boot(id, supervisor)
}
