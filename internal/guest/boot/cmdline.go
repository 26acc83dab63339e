package boot

import (
	"slices"
	"strings"
)

// hasWord reports whether the kernel's command line has word by itself.
func hasWord(line, word string) bool { return slices.Contains(strings.Fields(line), word) }
