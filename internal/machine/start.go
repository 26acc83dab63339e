package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/frames"
	"github.com/banger-vm/banger/internal/machine/control"
	"github.com/banger-vm/banger/internal/machine/ledger"
	"github.com/banger-vm/banger/internal/machine/ledger/resource"
	"github.com/banger-vm/banger/internal/machine/record"
	"github.com/banger-vm/banger/internal/machine/repair"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// Start starts a supervisor for a machine that does not run, and passes the
// machine's lock on to it, so that the machine is never unlocked in between.
// The stream carries Event frames until the machine's agent answers. Then it
// ends, or, with l.Attach, continues as the main command's. If the start fails,
// the last frame is an Error. When Start has returned, the start continues
// without this process and ctx. But with l.First, the machine ends if the
// stream ends before the machine is ready.
func (s *Store) Start(ctx context.Context, id string, l control.Launch) (*frames.Conn, error) {
	dir, err := claim(ctx, s.Client, id)
	if err != nil {
		return nil, err
	}
	l.Notices = append(l.Notices, startNotices(s.root, id)...)
	return startLocked(ctx, dir, l)
}

// claim locks a machine that does not run. If the machine has booted for its
// files, claim ends it first. The error has the code api.CodeBusy if a client
// copies files.
func claim(ctx context.Context, c control.Client, id string) (*record.Folder, error) {
	dir, err := c.Root.TryClaim(ctx, id)
	if !errors.Is(err, record.ErrRunning) {
		return dir, err
	}
	rec, readErr := record.Read(c.Root.DataDir(id))
	if readErr != nil || rec.State == record.StateRunning {
		return c.Root.Claim(ctx, id)
	}
	const patience = time.Second // other processes lock a machine for a moment, and do not answer
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	released := c.Do(limited, id, &control.Request{ReleaseFiles: true}, nil)
	dir, err = c.Root.Claim(ctx, id)
	if errors.Is(err, record.ErrRunning) && released == nil {
		return nil, &api.Error{Code: api.CodeBusy, Message: fmt.Sprintf("machine %s: busy: cp copies its files", rec.Config.Name)}
	}
	return dir, err
}

// startNotices returns remarks for the user who starts a machine.
func startNotices(root *record.Root, id string) []string {
	rec, err := record.Read(root.DataDir(id))
	if err != nil {
		return nil // the start fails with this error
	}
	others, _, err := root.List()
	if err != nil {
		return []string{fmt.Sprintf("whether the host has memory for the machine is not known: %v", err)}
	}
	return memoryWarnings(others, rec)
}

// startLocked starts a supervisor for a machine that this process has locked. It
// always closes this process's descriptor of the lock.
func startLocked(ctx context.Context, dir *record.Folder, l control.Launch) (*frames.Conn, error) {
	j, err := record.OpenJournal(ctx, dir)
	if err != nil && l.First {
		return nil, errors.Join(err, dir.Erase(context.WithoutCancel(ctx), nil))
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	conn, err := launch(ctx, j, l)
	if err != nil {
		return nil, errors.Join(err, j.Abandon(context.WithoutCancel(ctx), l.First))
	}
	return conn, dir.Close()
}

// launch makes the runtime folder of a machine and starts its supervisor.
func launch(ctx context.Context, j *record.Journal, l control.Launch) (*frames.Conn, error) {
	if err := markLost(j); err != nil {
		return nil, err
	}
	if len(j.Held()) > 0 || exists(j.Dir.Runtime) {
		if err := j.Clear(ctx); err != nil { // of a supervisor that was killed
			return nil, err
		}
	}
	files := []resource.File{{Kind: ledger.Folder, Path: j.Dir.Runtime}}
	for _, name := range append(control.Sockets(), qemu.Sockets()...) {
		files = append(files, resource.File{Kind: ledger.Socket, Path: filepath.Join(j.Dir.Runtime, name)})
	}
	if err := j.Maker.Reserve(files...); err != nil {
		return nil, err
	}
	if err := os.Mkdir(j.Dir.Runtime, 0o700); err != nil {
		return nil, fmt.Errorf("make runtime folder: %w", err)
	}
	conn, err := startSupervisor(ctx, j, l)
	if err != nil {
		return nil, fmt.Errorf("start supervisor: %w", err)
	}
	return conn, nil
}

// markLost corrects the record of a machine that is recorded as running and
// whose supervisor is gone. The next write of the ledger publishes the record.
func markLost(j *record.Journal) error {
	if j.Record().State != record.StateRunning {
		return nil
	}
	why, err := repair.EndReason(j.Entries())
	if err == nil {
		j.Set(func(rec *record.Record) {
			rec.MarkFailed(why)
			rec.Finished = time.Now().UTC()
		})
	}
	return err
}

// exists reports whether there is a file at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// startSupervisor starts the supervisor, enters it in the ledger and sends it the launch.
// From then on only the supervisor writes the ledger.
func startSupervisor(ctx context.Context, j *record.Journal, l control.Launch) (*frames.Conn, error) {
	ours, theirs, err := control.StartPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	conn := frames.New(ours)
	output, err := os.OpenFile(filepath.Join(j.Dir.Data, control.SupervisorLog), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	defer output.Close()
	err = j.Maker.Process(ctx, record.SupervisorEntry, func(mark string) (int, error) {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), l.Supervisor[0], slices.Concat(l.Supervisor[1:], []string{j.Dir.ID()})...)
		cmd.Env = append(os.Environ(), mark)
		cmd.Dir = "/"
		cmd.Stdout, cmd.Stderr = output, output
		cmd.ExtraFiles = []*os.File{theirs, j.Dir.LockFile()}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		go cmd.Wait() //nolint:errcheck // only reaps the process: its lock shows its end
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
