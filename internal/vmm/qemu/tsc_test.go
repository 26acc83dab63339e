package qemu

import (
	"strings"
	"testing"
)

func TestParseTSC(t *testing.T) {
	for _, row := range []struct {
		name, text string
		want       int
	}{
		{"first processor", "processor\t: 0\nbogomips\t: 4191.98\n\nprocessor\t: 1\nbogomips\t: 1.00\n", 2095990},
		{"none", "processor\t: 0\n", 0},
		{"empty", "", 0},
		{"a word", "bogomips\t: fast\n", 0},
		{"not a number", "bogomips\t: NaN\n", 0},
		{"endless", "bogomips\t: +Inf\n", 0},
		{"negative", "bogomips\t: -5\n", 0},
		{"zero", "bogomips\t: 0.00\n", 0},
	} {
		if got, err := parseTSC(strings.NewReader(row.text)); got != row.want || err != nil {
			t.Errorf("%s: %d, %v, want %d", row.name, got, err, row.want)
		}
	}
}
