package attach

import (
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/banger-vm/banger/internal/cli/exit"
)

func TestDetachKeys(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"ctrl-p,ctrl-q", "\x10\x11"}, {"ctrl-@", "\x00"}, {"ctrl-[,x", "\x1bx"}, {"a,b,c", "abc"}, {"ctrl-\\", "\x1c"},
	} {
		if got, err := parseDetachKeys(row.text); err != nil || string(got) != row.want {
			t.Errorf("%s: %q, %v, want %q", row.text, got, err, row.want)
		}
	}
	for _, text := range []string{"", "ctrl-", "ctrl-P", "ctrl-pq", "ab", "a,", "ä", "ctrl-1"} {
		if got, err := parseDetachKeys(text); exit.Code(err) != exit.Usage {
			t.Errorf("%q: %q, %v, want a usage error", text, got, err)
		}
	}
}

// TestDetacher checks that a detacher passes the input on unchanged, except for the
// keys and the input after them.
func TestDetacher(t *testing.T) {
	for _, row := range []struct {
		name, keys, in, want string
		pressed              bool
	}{
		{"nothing", "pq", "", "", false},
		{"other keys", "pq", "hello", "hello", false},
		{"the keys", "pq", "hello pq", "hello ", true},
		{"input after the keys", "pq", "a pq b pq", "a ", true},
		{"the first alone", "pq", "a p b", "a p b", false},
		{"the first at the end", "pq", "a p", "a p", false},
		{"the first twice", "pq", "a ppq", "a p", true},
		{"a sequence that overlaps itself", "aab", "aaab", "a", true},
		{"and ends early", "aab", "aaac aa", "aaac aa", false},
		{"one key", "p", "ap", "a", true},
		{"an overlap in the middle", "abac", "ababac", "ab", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			for name, in := range map[string]io.Reader{
				"at once": strings.NewReader(row.in), "byte by byte": iotest.OneByteReader(strings.NewReader(row.in)),
			} {
				done := make(chan struct{})
				close(done)
				d := newDetacher(in, []byte(row.keys), done)
				got, err := io.ReadAll(d)
				if err != nil || string(got) != row.want {
					t.Errorf("%s: %q, %v, want %q", name, got, err, row.want)
				}
				select {
				case <-d.pressed:
					if !row.pressed {
						t.Errorf("%s: detached", name)
					}
				default:
					if row.pressed {
						t.Errorf("%s: not detached", name)
					}
				}
			}
		})
	}
}
