package cli

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/cli/env"
	"github.com/banger-vm/banger/internal/cli/exit"
)

// A closedWriter is standard output whose writes fail with an error.
type closedWriter struct{ err error }

func (w closedWriter) Write([]byte) (int, error) {
	return 0, &fs.PathError{Op: "write", Path: "/dev/stdout", Err: w.err}
}

// TestOutputThatTakesNoMore covers a pipe whose reader has gone, which ends banger
// without a word, and a full file, which the error names.
func TestOutputThatTakesNoMore(t *testing.T) {
	for _, row := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"a closed pipe", syscall.EPIPE, 128 + int(syscall.SIGPIPE), ""},
		{"a full file", syscall.ENOSPC, exit.Failed, "banger: standard output: no space left on device\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, args := range [][]string{{"version"}, {"version", "--json"}, {"--help"}} {
				var stderr bytes.Buffer
				code := Main(t.Context(), "v1", args, strings.NewReader(""), closedWriter{row.err}, &stderr)
				if code != row.code || stderr.String() != row.want {
					t.Errorf("%q: code %d, stderr %q; want %d, %q", args, code, &stderr, row.code, row.want)
				}
			}
		})
	}
	failed := errors.New("another error")
	if err := outputError(failed, &env.OutputError{Err: syscall.EPIPE}); !errors.Is(err, failed) {
		t.Errorf("an error of the command is lost: %v", err)
	}
}
