package exit

import (
	"errors"
	"testing"

	"github.com/banger-vm/banger/api"
)

// TestOfCommand checks the exit code of an error of run or exec: the code of the
// daemon's error if it has one, 2 for a usage error, and 125 otherwise.
func TestOfCommand(t *testing.T) {
	for _, row := range []struct {
		err  error
		want int
	}{
		{errors.New("no daemon"), 125}, {Error(7), 7}, {Usagef("no"), 2}, {&CodedError{124, errors.New("late")}, 124},
		{&api.Error{Code: api.CodeInvalid}, 2}, {&api.Error{Code: api.CodeNoCommand, ExitCode: 127}, 127},
		{&api.Error{Code: api.CodeNoCommand, ExitCode: 126}, 126}, {&api.Error{Code: api.CodeNotFound}, 125},
	} {
		if got := Code(OfCommand(row.err)); got != row.want {
			t.Errorf("%v: exit code %d, want %d", row.err, got, row.want)
		}
	}
	if OfCommand(nil) != nil {
		t.Error("OfCommand(nil) is an error")
	}
}
