package boot

import (
	"slices"
	"strings"
)

// hasWord reports whether word is one of the words of the kernel's command
// line.
func hasWord(line, word string) bool { return slices.Contains(strings.Fields(line), word) }
