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
)

// Limits of a connection.
const (
	headerTime = 10 * time.Second // until the header of a request has arrived
	quietTime  = time.Minute      // between two requests
	maxHeader  = 64 << 10         // bytes
)

// shutdownTime is how long the open requests have to end when the daemon shuts
// down.
const shutdownTime = 5 * time.Second

// Serve runs the daemon. It listens in the runtime folder of c.Machines until ctx
// ends, a client requests the shutdown, or the daemon has been idle for c.Idle.
// Then it interrupts open requests and streams. Machines continue to run. The error
// is ErrServed if another daemon serves the same data folder.
//
// Serve owns the process: it closes all files that the process has inherited, except
// a socket of the service manager.
func Serve(ctx context.Context, c Config) error {
	if err := closeInherited(); err != nil {
		return err
	}
	c = c.complete()
	listener, lock, err := listen(ctx, c.Machines.Runtime(), c.DataRoot)
	if err != nil {
		return err
	}
	defer lock.Close()
	c.Log.Info("daemon serves", "version", c.Version, "pid", os.Getpid(), "socket", SocketPath(c.Machines.Runtime()), "idle", c.Idle)
	s := newServer(c)
	return s.serveOn(ctx, listenPeers(listener, c.Connections, c.Log))
}

// serveOn serves on the listener until the daemon is to shut down, and closes it.
func (s *server) serveOn(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var background sync.WaitGroup
	defer background.Wait()
	defer cancel()
	background.Go(func() { s.watcher.run(ctx) })
	background.Go(func() { s.reconcile(ctx) })
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
	case <-s.quit.requested:
	case <-s.idle.expired:
		why = "idle"
	case failed = <-served:
		why = failed.Error()
	}
	s.Log.Info("daemon ends", "why", why)
	s.quit.request()
	return errors.Join(failed, s.shutDown(h, cancel))
}

// shutDown interrupts the requests in progress and waits until their answers are
// written. After shutdownTime it closes the connections.
func (s *server) shutDown(h *http.Server, cancel context.CancelFunc) error {
	limited, stop := context.WithTimeout(context.Background(), shutdownTime)
	defer stop()
	cancel()
	err := h.Shutdown(limited)
	if errors.Is(err, context.DeadlineExceeded) {
		err = h.Close()
	}
	// Shutdown does not wait for hijacked connections, which are the streams.
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.requests.Wait()
	}()
	select {
	case <-finished:
	case <-limited.Done():
		s.Log.Warn("daemon ends with requests that are still open")
	}
	return err
}

// reconcile repairs the records and resources of the machines before the daemon
// answers the first request about them. Then it boots the machines whose policy
// requires it.
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
	close(s.reconciled)
	for _, id := range done.Adopted {
		s.watcher.watch(id)
	}
	var boots sync.WaitGroup
	defer boots.Wait()
	slots := make(chan struct{}, runtime.NumCPU())
	for _, id := range done.Restart {
		slots <- struct{}{}
		boots.Go(func() {
			defer func() { <-slots }()
			s.starter.restartByPolicy(ctx, id)
		})
	}
}
