package attach

import (
	"os"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// openPTY returns a terminal of 100 columns and 30 rows.
func openPTY(t *testing.T) *os.File {
	t.Helper()
	master, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tty.Close()
		master.Close()
	})
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 30, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	return tty
}

// echoes reports whether a terminal echoes input: it does not in raw mode.
func echoes(t *testing.T, tty *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Error(err)
		return false
	}
	return state.Lflag&unix.ECHO != 0
}

func TestTTY(t *testing.T) {
	t.Setenv("TERM", "vt220")
	tty := openPTY(t)
	pipe := strings.NewReader("")
	for _, row := range []struct {
		name       string
		env        env.Env
		tty        bool
		rows, cols int // 0 for no terminal
	}{
		{"a terminal", env.Env{In: tty}, true, 30, 100},
		{"none at standard input", env.Env{In: pipe}, true, 24, 80},
		{"none for the command", env.Env{In: tty}, false, 0, 0},
	} {
		s := &Session{Env: &row.env}
		if err := s.Open(row.tty, false, ""); err != nil {
			t.Fatal(err)
		}
		got := s.TTY()
		if (got != nil) != row.tty || got != nil && (got.Rows != row.rows || got.Cols != row.cols || got.Term != "vt220") {
			t.Errorf("%s: %+v, want %d rows and %d columns", row.name, got, row.rows, row.cols)
		}
	}
	s := &Session{Env: &env.Env{In: pipe}}
	if err := s.Open(true, true, ""); exit.Code(err) != exit.Usage {
		t.Errorf("an interactive terminal without one: %v, want a usage error", err)
	}
}

// TestRawMode checks that release leaves raw mode, and that raw does not enter it
// again.
func TestRawMode(t *testing.T) {
	file := openPTY(t)
	term, err := openTerminal(file, true, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		do     func() error
		echoes bool
	}{
		{"before", func() error { return nil }, true},
		{"raw", term.raw, false},
		{"release", func() error { term.release(); return nil }, true},
		{"raw after release", term.raw, true},
		{"release again", func() error { term.release(); return nil }, true},
	} {
		if err := row.do(); err != nil || echoes(t, file) != row.echoes {
			t.Errorf("%s: the terminal echoes: %v, want %v (%v)", row.name, !row.echoes, row.echoes, err)
		}
	}
}
