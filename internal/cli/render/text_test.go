package render

import (
	"slices"
	"testing"
)

func TestWrap(t *testing.T) {
	for _, row := range []struct {
		text  string
		width int
		want  []string
	}{
		{"", 5, []string{""}},
		{"one", 5, []string{"one"}},
		{"one two three", 7, []string{"one two", "three"}},
		{"a-long-word and more", 5, []string{"a-long-word", "and", "more"}},
		{"größe für", 9, []string{"größe für"}},
	} {
		if got := Wrap(row.text, row.width); !slices.Equal(got, row.want) {
			t.Errorf("%q at %d columns: %q, want %q", row.text, row.width, got, row.want)
		}
	}
}
