package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/banger-vm/banger/internal/ledger"
)

// A Maker makes resources for one machine. Where a method fails nothing of
// its resource is left, and what could not be removed stays entered.
type Maker struct {
	Ledger *ledger.Ledger
	Owner  ledger.Owner
}

// make notes e, calls do, which makes the resource and completes e, and
// enters what e has become.
func (m Maker) make(ctx context.Context, e ledger.Entry, do func(e *ledger.Entry) error) error {
	e.Owner = m.Owner
	boot, err := bootID()
	if err != nil {
		return fmt.Errorf("make %s: %w", &e, err)
	}
	e.Boot = boot
	err = m.Ledger.Note(e)
	if errors.Is(err, ledger.ErrRefused) {
		return err // what is entered by this name is alive
	}
	if err != nil {
		return errors.Join(err, m.Ledger.Strike(e)) // one copy may have it
	}
	noted := e
	if err = do(&e); err == nil {
		err = m.Ledger.Identify(e)
	} else {
		err = fmt.Errorf("make %s: %w", &noted, err)
	}
	if err == nil {
		return nil
	}
	// The caller's ctx may be what ended it.
	limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if removeErr := Remove(limited, e); removeErr != nil {
		return errors.Join(err, fmt.Errorf("remove %s: %w", &e, removeErr))
	}
	return errors.Join(err, m.Ledger.Strike(e))
}

// Process starts a process by start, which is to add mark to its environment
// and returns its ID. name is its part in the machine.
func (m Maker) Process(ctx context.Context, name string, start func(mark string) (pid int, err error)) error {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name of process %q: want one without '/'", name)
	}
	return m.make(ctx, ledger.Entry{Kind: ledger.Process, Name: name}, func(e *ledger.Entry) error {
		pid, err := start(processMark(m.Owner, name))
		if err != nil {
			return err
		}
		stat, err := readStat(pid)
		if err != nil {
			return err
		}
		e.PID, e.Start = pid, stat.start
		return nil
	})
}

// File makes a socket, a disk or a folder by create, which must not replace
// what is there. A folder of the machine's ID must be in path, or be it.
func (m Maker) File(ctx context.Context, kind ledger.Kind, path string, create func() error) error {
	e := ledger.Entry{Kind: kind, Name: path, Path: path}
	if err := checkPath(path, m.Owner.ID()); err != nil {
		return fmt.Errorf("make %s: %w", &e, err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		if err == nil {
			err = os.ErrExist
		}
		return fmt.Errorf("make %s: %w", &e, err)
	}
	return m.make(ctx, e, func(e *ledger.Entry) error {
		if err := create(); err != nil {
			return err
		}
		id, _, err := fileID(path)
		e.File = id
		return err
	})
}

// patience is how long the kernel, or whoever briefly opened a device, may
// take to let a resource go.
const patience = 5 * time.Second

// until calls done until it reports true, an error, or that patience is over.
func until(ctx context.Context, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	const every = 5 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("still there: %w", ctx.Err())
		case <-tick.C:
		}
	}
}
