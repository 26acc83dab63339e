package resource

import (
	"errors"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// TestRemoveRounds removes devices. Each is busy as long as the device above it
// exists.
func TestRemoveRounds(t *testing.T) {
	errBusy, errStuck := errors.New("busy"), errors.New("stuck")
	for _, row := range []struct {
		name  string
		order []string
		above map[string]string // the device above each device
		left  []string
		calls int
	}{
		{"the top first", []string{"top", "middle", "base"}, map[string]string{"middle": "top", "base": "middle"}, nil, 3},
		{"the base first", []string{"base", "middle", "top"}, map[string]string{"middle": "top", "base": "middle"}, nil, 3 + 2 + 1},
		{"one is stuck", []string{"stuck", "base", "top"}, map[string]string{"base": "top"}, []string{"stuck"}, 3 + 2 + 1},
		{"all are stuck", []string{"base", "stuck"}, map[string]string{"base": "stuck"}, []string{"base", "stuck"}, 2},
		{"nothing to do", nil, nil, nil, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			left := slices.Clone(row.order)
			var entries []ledger.Entry
			for _, name := range row.order {
				entries = append(entries, ledger.Entry{Kind: ledger.DM, Name: name})
			}
			calls := 0
			err := removeRounds(entries, func(e ledger.Entry) error {
				calls++
				switch {
				case e.Name == "stuck":
					return errStuck
				case slices.Contains(left, row.above[e.Name]):
					return errBusy
				}
				left = slices.DeleteFunc(left, func(name string) bool { return name == e.Name })
				return nil
			})
			if !slices.Equal(left, row.left) || calls != row.calls {
				t.Errorf("left %q after %d calls, want %q after %d", left, calls, row.left, row.calls)
			}
			if errors.Is(err, errStuck) != slices.Contains(row.left, "stuck") ||
				errors.Is(err, errBusy) != slices.Contains(row.left, "base") {
				t.Errorf("error %v, left %q", err, row.left)
			}
		})
	}
}
