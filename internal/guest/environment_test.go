package guest

import (
	"slices"
	"testing"
)

func TestUniqueEnv(t *testing.T) {
	got := UniqueEnv([]string{"A=1", "B=2", "A=3", "C", "B=", "=D", "C=4"})
	if want := []string{"A=3", "B=", "C=4", "=D"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := UniqueEnv(nil); got != nil {
		t.Errorf("got %q of no entries, want nil", got)
	}
}
