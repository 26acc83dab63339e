package resource

import (
	"errors"
	"slices"
	"testing"

	"github.com/banger-vm/banger/internal/ledger"
)

// TestMakingTwiceKeepsTheFirst: an entry that is struck while its resource
// lives is a leak.
func TestMakingTwiceKeepsTheFirst(t *testing.T) {
	w := newWorld(t)
	m := w.maker(t)
	e := ledger.Entry{Kind: ledger.Tap, Name: "bgr"}
	if err := m.make(t.Context(), e, func(*ledger.Entry) error { return nil }); err != nil {
		t.Fatal(err)
	}
	first := m.Ledger.Entries()
	if len(first) != 1 {
		t.Fatalf("entries = %v, want one", first)
	}
	err := m.make(t.Context(), e, func(*ledger.Entry) error {
		t.Error("it was made twice")
		return nil
	})
	if !errors.Is(err, ledger.ErrRefused) {
		t.Errorf("second: %v, want ErrRefused", err)
	}
	if got := m.Ledger.Entries(); !slices.Equal(got, first) {
		t.Errorf("entries = %v, want %v", got, first)
	}
}
