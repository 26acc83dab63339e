package cli

import (
	"os"

	"github.com/banger-vm/banger/api"
	"golang.org/x/term"
)

// A terminal is the user's, when the command is to have one. Its methods do
// nothing on nil.
type terminal struct{ file *os.File }

// openTerminal returns nil when no terminal is wanted. One that is wanted and
// read must be one, as with docker.
func (a *app) openTerminal(wanted, interactive bool) (*terminal, error) {
	if !wanted {
		return nil, nil //nolint:nilnil // no terminal, as documented
	}
	f, ok := a.in.(*os.File)
	if ok && term.IsTerminal(int(f.Fd())) {
		return &terminal{f}, nil
	}
	if interactive {
		return nil, usagef("standard input is not a terminal: leave out -t, or -i")
	}
	return &terminal{}, nil
}

// size is the terminal that a command is to get: of the size of the user's.
func (t *terminal) size() *api.TTY {
	if t == nil {
		return nil
	}
	const columns, rows = 80, 24 // where there is no terminal to take them from
	tty := &api.TTY{Term: first(os.Getenv("TERM"), "xterm"), Rows: rows, Cols: columns}
	if t.file != nil {
		if w, h, err := term.GetSize(int(t.file.Fd())); err == nil {
			tty.Rows, tty.Cols = h, w
		}
	}
	return tty
}

// raw hands the user's keys through as they are until restore is called.
func (t *terminal) raw() (restore func(), err error) {
	if t == nil || t.file == nil {
		return func() {}, nil
	}
	state, err := term.MakeRaw(int(t.file.Fd()))
	if err != nil {
		return nil, err
	}
	return func() {
		_ = term.Restore(int(t.file.Fd()), state) // the terminal may be gone
	}, nil
}

// resized tells p the size that the terminal has now.
func (t *terminal) resized(p *api.Process) {
	if t == nil || t.file == nil {
		return
	}
	if w, h, err := term.GetSize(int(t.file.Fd())); err == nil {
		_ = p.Resize(h, w) // a command that has ended needs no size
	}
}
