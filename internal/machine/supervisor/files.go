package supervisor

import (
	"context"
	"sync"
	"time"

	"github.com/banger-vm/banger/internal/guest"
	"github.com/banger-vm/banger/internal/machine/bootplan"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/record"
)

// filesIdle is how long a machine that booted only for its files waits for
// another request. A copy sends several.
const filesIdle = 2 * time.Second

// A filesSession is the life of a machine that booted only for its files; see
// control.Launch.Files. It ends when it has had no user for a while.
type filesSession struct {
	ended chan struct{} // closed at the end

	mu       sync.Mutex
	users    int
	released bool // it ends with its last user
	timer    *time.Timer
}

// newFilesSession starts a session with one user.
func newFilesSession() *filesSession { return &filesSession{ended: make(chan struct{}), users: 1} }

// enter adds the sender of a request to the users. It returns
// record.ErrNotRunning if the session has ended, or if the request is for a
// machine that runs.
func (f *filesSession) enter(r *control.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Archive == nil && !r.HoldFiles && !r.ReleaseFiles && !r.Status {
		return record.ErrNotRunning
	}
	select {
	case <-f.ended:
		return record.ErrNotRunning
	default:
	}
	f.released = f.released || r.ReleaseFiles
	f.users++
	if f.timer != nil {
		f.timer.Stop()
	}
	return nil
}

// leave removes a user.
func (f *filesSession) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users > 0 {
		return
	}
	if f.released {
		f.end()
		return
	}
	f.timer = time.AfterFunc(filesIdle, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.users == 0 { // enter may have been too late to stop the timer
			f.end()
		}
	})
}

// end closes ended. The caller holds the lock.
func (f *filesSession) end() {
	select {
	case <-f.ended:
	default:
		close(f.ended)
	}
}

// planFiles returns the boot plan of a machine that boots only for its files: no
// program of the image runs.
func planFiles(p *bootplan.Plan) bootplan.Plan {
	return bootplan.Plan{Init: guest.InitBanger, Overlay: p.Overlay}
}

// serveFiles waits for the end of the session and powers the machine off.
func (v *supervisor) serveFiles(ctx context.Context, m *instance) error {
	v.reportReady()
	v.files.leave()
	select {
	case <-v.files.ended:
		return m.agent.PowerOff(ctx, 0)
	case <-m.monitor.Done():
		return m.waitEnd()
	}
}
