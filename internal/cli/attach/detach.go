package attach

import (
	"bytes"
	"io"
	"strings"
	"sync"

	"github.com/banger-vm/banger/internal/cli/exit"
)

// DefaultDetachKeys are the keys that leave a command with a terminal, as
// docker has them.
const DefaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys returns the bytes that a terminal sends for a list of keys
// with commas between. A key is a character, or ctrl- and a character.
func parseDetachKeys(text string) ([]byte, error) {
	var keys []byte
	for key := range strings.SplitSeq(text, ",") {
		ctrl, isCtrl := strings.CutPrefix(key, "ctrl-")
		switch {
		case isCtrl && len(ctrl) == 1 && strings.Contains("abcdefghijklmnopqrstuvwxyz@[\\]^_", ctrl):
			const control = 0x1f // the bits of a letter that its control character has
			keys = append(keys, ctrl[0]&control)
		case !isCtrl && len(key) == 1 && key[0] < 0x80:
			keys = append(keys, key[0])
		default:
			return nil, exit.Usagef("--detach-keys=%s: want characters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas between", text)
		}
	}
	return keys, nil
}

// A detacher passes a terminal's input on until the user presses the detach
// keys. It holds back the beginning of the keys until a byte shows that the
// user has typed something else.
type detacher struct {
	in      io.Reader
	keys    []byte
	matched int    // number of keys that are held back
	passed  []byte // input that Read may return
	over    bool   // all keys have been read
	pressed chan struct{}
	once    sync.Once
	done    <-chan struct{}
}

// newDetacher returns a detacher that closes pressed after the keys, once the
// input before them has been read. Then Read waits for done: an end of file
// would end the command's input, which a user who detaches does not want.
func newDetacher(in io.Reader, keys []byte, done <-chan struct{}) *detacher {
	return &detacher{in: in, keys: keys, pressed: make(chan struct{}), done: done}
}

func (d *detacher) Read(p []byte) (int, error) {
	for len(d.passed) == 0 {
		if d.over {
			d.once.Do(func() { close(d.pressed) })
			<-d.done
			return 0, io.EOF
		}
		n, err := d.in.Read(p)
		d.match(p[:n])
		if err != nil {
			d.passed = append(d.passed, d.keys[:d.matched]...)
			d.matched = 0
			if len(d.passed) > 0 {
				break // the next Read returns the error
			}
			return 0, err
		}
	}
	n := copy(p, d.passed)
	d.passed = d.passed[n:]
	return n, nil
}

// match appends data to passed, except for the keys. It drops the data after
// the keys.
func (d *detacher) match(data []byte) {
	for _, b := range data {
		for d.matched > 0 && b != d.keys[d.matched] {
			d.pass()
		}
		if b != d.keys[d.matched] {
			d.passed = append(d.passed, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.matched, d.over = 0, true
			return
		}
	}
}

// pass passes on the shortest part of the held-back bytes after which the rest
// can begin the keys again.
func (d *detacher) pass() {
	held := d.keys[:d.matched]
	for n := 1; n <= len(held); n++ {
		if rest := held[n:]; bytes.HasPrefix(d.keys, rest) {
			d.passed = append(d.passed, held[:n]...)
			d.matched = len(rest)
			return
		}
	}
}
