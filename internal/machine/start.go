package machine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
)

// What a supervisor inherits, after its standard streams.
const (
	startFD = 3 // its end of a socket pair: the Launch comes, then go frames of the start
	lockFD  = 4 // the locked data folder of its machine
)

// supervisorLog is where a supervisor writes what it cannot tell anybody. It
// has that of the last start alone.
const supervisorLog = "supervisor.log"

// Start makes a supervisor for a machine that does not run, and passes the
// machine's lock on to it, so that the machine is never unlocked in between.
// The stream has Event frames until the machine's agent answers; then it ends,
// or with l.Attach goes on as the main command's. An Error frame is the last
// of a start that failed. Once there is a stream, the start goes on without
// this process and ctx, but with l.First, where the end of the stream before
// the machine is ready ends the machine.
func (s *Store) Start(ctx context.Context, id string, l Launch) (*frames.Conn, error) {
	dir, err := s.claim(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.start(ctx, dir, l)
}

// start is Start of a machine that this process holds. In any case it lets go
// of it.
func (s *Store) start(ctx context.Context, dir *folder, l Launch) (*frames.Conn, error) {
	j, err := s.openJournal(ctx, dir)
	if err != nil && l.First {
		return nil, errors.Join(err, s.erase(context.WithoutCancel(ctx), dir, nil))
	}
	if err != nil {
		return nil, errors.Join(err, dir.lock.Close())
	}
	conn, err := j.launch(ctx, l)
	if err != nil {
		return nil, errors.Join(err, j.abandon(context.WithoutCancel(ctx), l.First))
	}
	return conn, dir.lock.Close()
}

// held is what the machine has besides its disk.
func (j *journal) held() []ledger.Entry {
	return slices.DeleteFunc(j.ledger.Entries(), func(e ledger.Entry) bool { return e.Kind == ledger.Disk })
}

// abandon undoes a start.
func (j *journal) abandon(ctx context.Context, remove bool) error {
	if remove {
		return j.discard(ctx)
	}
	return errors.Join(j.clear(ctx), j.dir.lock.Close())
}

func (j *journal) launch(ctx context.Context, l Launch) (*frames.Conn, error) {
	if err := j.settleLost(); err != nil {
		return nil, err
	}
	if len(j.held()) > 0 || exists(j.dir.runtime) {
		if err := j.clear(ctx); err != nil { // of a supervisor that was killed
			return nil, err
		}
	}
	files := []resource.File{{Kind: ledger.Folder, Path: j.dir.runtime}}
	for _, path := range j.sockets() {
		files = append(files, resource.File{Kind: ledger.Socket, Path: path})
	}
	if err := j.maker.Reserve(files...); err != nil {
		return nil, err
	}
	if err := os.Mkdir(j.dir.runtime, 0o700); err != nil {
		return nil, fmt.Errorf("make runtime folder: %w", err)
	}
	conn, err := j.spawn(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	return conn, nil
}

// settleLost corrects the record of a machine that nobody has since its end;
// the next change of the ledger publishes it.
func (j *journal) settleLost() error {
	if j.record().State != StateRunning {
		return nil
	}
	why, err := lostReason(j.ledger.Entries())
	if err == nil {
		j.set(func(rec *Record) {
			rec.lose(why)
			rec.Finished = time.Now().UTC()
		})
	}
	return err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// spawn starts the supervisor and tells it what to do once it is entered in
// the ledger, which is the supervisor's from then on.
func (j *journal) spawn(ctx context.Context, l Launch) (*frames.Conn, error) {
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn := frames.New(ours)
	output, err := os.OpenFile(filepath.Join(j.dir.data, supervisorLog), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer output.Close()
	err = j.maker.Process(ctx, supervisorPart, func(mark string) (int, error) {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), l.Supervisor[0], slices.Concat(l.Supervisor[1:], []string{j.rec.ID})...) //nolint:gosec // the caller's own program
		cmd.Env = append(os.Environ(), mark)
		cmd.Dir = "/"
		cmd.Stdout, cmd.Stderr = output, output
		cmd.ExtraFiles = []*os.File{theirs, j.dir.lock}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		go cmd.Wait() //nolint:errcheck // reaps it, should this process live so long; its end is seen by its lock
		return cmd.Process.Pid, nil
	})
	if err == nil {
		err = conn.SendJSON(frames.Request, l)
	}
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// socketPair returns one end as a connection and the other as a file to be
// inherited.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make socket pair: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "start"), os.NewFile(uintptr(fds[1]), "start")
	defer mine.Close() // FileConn has its own
	conn, err := net.FileConn(mine)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make socket pair: %w", err), theirs.Close())
	}
	return conn, theirs, nil
}
