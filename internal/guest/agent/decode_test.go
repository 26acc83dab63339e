package agent

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/banger-vm/banger/internal/guest"
)

// The kernel accepts the strings of a command that checkCommand accepts.
func FuzzCommand(f *testing.F) {
	f.Add(ssh.Marshal(stringPayload{`{"args":["sh","-c","true"],"env":["A=1"],"user":"a:b","dir":"x","main":true}`}))
	f.Add(ssh.Marshal(stringPayload{`{"args":["\u0000"],"env":["=1"]}`}))
	f.Add([]byte{0, 0, 0, 2, '{', '}'})
	f.Add([]byte{255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var c guest.Command
		if decodeJSON(payload, &c) != nil || checkCommand(&c) != nil {
			return
		}
		for _, s := range append(slices.Concat(c.Args, c.Env), c.Dir) {
			if strings.ContainsRune(s, 0) {
				t.Fatalf("a zero byte in %q", s)
			}
		}
		env := environ(c.Env, "HOME=/", "PATH=/bin")
		seen := map[string]bool{}
		for _, s := range env {
			name, _, ok := strings.Cut(s, "=")
			if !ok || name == "" || seen[name] {
				t.Fatalf("%q in %q", s, env)
			}
			seen[name] = true
		}
		if !seen["HOME"] || !seen["PATH"] {
			t.Fatalf("no HOME or PATH in %q", env)
		}
	})
}

// The terminal modes come from the client and may be any bytes.
func FuzzModes(f *testing.F) {
	f.Add("\x03\x00\x00\x00\x08\x00")
	f.Add("\x35\x00\x00\x00")
	f.Fuzz(func(t *testing.T, modes string) {
		master, peer, err := openPTY(&tty{modes: modes}, 0)
		if err != nil {
			t.Skip(err)
		}
		master.Close()
		peer.Close()
	})
}
