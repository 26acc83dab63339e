package attach

import (
	"cmp"
	"io"
	"os"
	"sync"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
	"golang.org/x/term"
)

// A terminal is the user's terminal, for a command that has a terminal too. A
// nil terminal stands for a command without one: its methods do nothing.
type terminal struct {
	file *os.File // nil if the user has no terminal

	mu       sync.Mutex
	restore  func() // leaves raw mode; nil if the terminal is not in raw mode
	released bool   // raw mode is not entered any more
}

// openTerminal returns nil if wanted is false. If the command is interactive
// too, in must be a terminal, as with docker.
func openTerminal(in io.Reader, wanted, interactive bool) (*terminal, error) {
	if !wanted {
		return nil, nil
	}
	if f, ok := env.Terminal(in); ok {
		return &terminal{file: f}, nil
	}
	if interactive {
		return nil, exit.Usagef("standard input is not a terminal: leave out -t, or -i")
	}
	return &terminal{}, nil
}

// size returns the type and the size of the user's terminal.
func (t *terminal) size() *api.TTY {
	if t == nil {
		return nil
	}
	const columns, rows = 80, 24 // if the user has no terminal
	tty := &api.TTY{Term: cmp.Or(os.Getenv("TERM"), "xterm"), Rows: rows, Cols: columns}
	if t.file != nil {
		if w, h, err := term.GetSize(int(t.file.Fd())); err == nil {
			tty.Rows, tty.Cols = h, w
		}
	}
	return tty
}

// resize sends p the current size of the terminal.
func (t *terminal) resize(p *api.Process) {
	if t == nil || t.file == nil {
		return
	}
	if w, h, err := term.GetSize(int(t.file.Fd())); err == nil {
		_ = p.Resize(h, w) // a command that has ended needs no size
	}
}

// raw passes the user's keys on uninterpreted until release is called. It does
// nothing after release.
func (t *terminal) raw() error {
	if t == nil || t.file == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.released {
		return nil
	}
	state, err := term.MakeRaw(int(t.file.Fd()))
	if err != nil {
		return err
	}
	t.restore = func() {
		_ = term.Restore(int(t.file.Fd()), state) // the terminal may be gone
	}
	return nil
}

// release leaves raw mode for good.
func (t *terminal) release() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.released = true
	if t.restore != nil {
		t.restore()
		t.restore = nil
	}
}
