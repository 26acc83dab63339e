// Package similar finds the name that a user may have meant.
package similar

// maxLength is the most bytes of a word that Nearest compares.
const maxLength = 256

// Nearest returns the name that differs least from word: by at most two insertions,
// removals, replacements or swaps of neighbours, and by at most a third of the word. It
// returns "" if there is none. Of several it returns the first.
func Nearest(word string, names []string) string {
	if len(word) > maxLength {
		return ""
	}
	const most, part = 2, 3
	best, found := min(most, len(word)/part)+1, ""
	for _, name := range names {
		if len(name) > maxLength || len(name) > len(word)+most || len(word) > len(name)+most {
			continue
		}
		if d := distance(word, name); d < best {
			best, found = d, name
		}
	}
	return found
}

// distance is the optimal string alignment distance of a and b.
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
