package render

import (
	"slices"
	"testing"
)

func TestShortBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 999: "999B", 1000: "0.977K", 1 << 20: "1M", 1023 << 10: "0.999M", 1536 << 20: "1.5G", 512 << 20: "512M", 1<<63 - 1: "8E",
	} {
		if got := ShortBytes(n); got != want {
			t.Errorf("%d bytes are %s, want %s", n, got, want)
		}
	}
}

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
