package spec

import (
	"slices"
	"strings"
	"testing"
)

// TestWordsOfNames checks that each word makes a valid name and that no list has
// a word twice.
func TestWordsOfNames(t *testing.T) {
	for _, list := range []string{adjectives, nouns} {
		words := strings.Fields(list)
		for _, w := range words {
			if CheckName(w) != nil {
				t.Errorf("%q makes no name", w)
			}
		}
		slices.Sort(words)
		if n := len(slices.Compact(slices.Clone(words))); n != len(words) || n < 80 {
			t.Errorf("%d words, %d different", len(words), n)
		}
	}
	if name := LongName(); CheckName(name) != nil {
		t.Errorf("name %q", name)
	}
}
