package similar

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"web", "db", "worker", "debian:12", "calm-otter", strings.Repeat("x", 300)}
	for word, want := range map[string]string{
		"wbe": "web", "we": "", "web2": "web", "d": "", "wroker": "worker", "debain:12": "debian:12", "debian:11": "debian:12",
		"calm-oter": "calm-otter", "otter": "", "": "", "entirely": "", strings.Repeat("x", 299): "", "web": "web",
	} {
		if got := Nearest(word, names); got != want {
			t.Errorf("nearest to %.20q is %.20q, want %q", word, got, want)
		}
	}
	if got := Nearest("a", nil); got != "" {
		t.Errorf("of no names: %q", got)
	}
}

func FuzzDistance(f *testing.F) {
	f.Add("web", "wbe")
	f.Add("", "a")
	f.Fuzz(func(t *testing.T, a, b string) {
		if len(a) > maxLength || len(b) > maxLength {
			t.Skip()
		}
		d := distance(a, b)
		if d != distance(b, a) || d > max(len(a), len(b)) || (d == 0) != (a == b) {
			t.Errorf("distance of %q and %q is %d", a, b, d)
		}
	})
}
