package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/env"
)

const (
	logName = "daemon.log"
	maxLog  = 1 << 20 // bytes; a larger log is emptied before the next start
)

// start starts a daemon that outlives this command, and waits until the daemon
// answers.
func (f *finder) start(ctx context.Context) error {
	log, err := openLog(f.dir)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd, err := daemonProcess(f.env, log)
	if err != nil {
		return err
	}
	begin, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("open daemon log: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start daemon: %w", err)
	}
	limited, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with the daemon, or with this command
		err := cmd.Wait()
		cancel(fmt.Errorf("it ended (%w)", errors.Join(err, lastLine(log, begin))))
	}()
	if _, _, err := f.until(limited, func(_ api.Info, found bool) bool { return found }); err != nil {
		if _, found, probeErr := f.probe(ctx); found && probeErr == nil { // another daemon was quicker
			return nil
		}
		if ctx.Err() == nil && limited.Err() != nil {
			err = context.Cause(limited)
		}
		return fmt.Errorf("start daemon: %w; see %s", err, log.Name())
	}
	return nil
}

// daemonProcess returns the command of a daemon. The daemon has a session of
// its own, so that a Ctrl-C in the terminal does not reach it.
func daemonProcess(e *env.Env, log *os.File) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find banger: %w", err)
	}
	// The daemon outlives this command and its context.
	cmd := exec.CommandContext(context.Background(), self,
		"--data-root", e.Paths.Data, "daemon", "--idle-timeout", OnDemandIdle.String())
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd, nil
}

func openLog(dir string) (*os.File, error) {
	path := filepath.Join(dir, logName)
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open daemon log: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxLog {
		err = f.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open daemon log: %w", err), f.Close())
	}
	return f, nil
}

// lastLine returns the last line of a log from the offset begin on, as an
// error, or nil if there is no text.
func lastLine(log io.ReaderAt, begin int64) error {
	const limit = 4 << 10 // bytes
	text := make([]byte, limit)
	n, err := log.ReadAt(text, begin)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	last := bytes.TrimSpace(text[:n])
	if i := bytes.LastIndexByte(last, '\n'); i >= 0 {
		last = last[i+1:]
	}
	if len(last) == 0 {
		return nil
	}
	return errors.New(strings.TrimPrefix(string(last), "banger: "))
}
