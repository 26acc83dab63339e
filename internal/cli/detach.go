package cli

import (
	"bytes"
	"io"
	"strings"
	"sync"
)

// defaultDetachKeys are docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

// parseDetachKeys reads a list of keys, each a character or ctrl- and one,
// as the bytes that a terminal sends for them.
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
			return nil, usagef("--detach-keys=%s: want characters, or ctrl- and one of a-z @ [ \\ ] ^ _, with commas between", text)
		}
	}
	return keys, nil
}

// A detacher passes a terminal's input on until the user presses the keys.
// They are told apart from the rest as late as that takes: the beginning of
// the sequence is held back until it is clear that it is none.
type detacher struct {
	in      io.Reader
	keys    []byte
	matched int    // of keys, and held back
	ready   []byte // may be handed out
	over    bool   // the keys have been read
	pressed chan struct{}
	once    sync.Once
	done    <-chan struct{}
}

// newDetacher returns a detacher that closes pressed when what was typed
// before the keys has been taken. Then Read waits for done: the command's
// input has not ended, somebody has just left.
func newDetacher(in io.Reader, keys []byte, done <-chan struct{}) *detacher {
	return &detacher{in: in, keys: keys, pressed: make(chan struct{}), done: done}
}

func (d *detacher) Read(p []byte) (int, error) {
	for len(d.ready) == 0 {
		if d.over {
			d.once.Do(func() { close(d.pressed) })
			<-d.done
			return 0, io.EOF
		}
		n, err := d.in.Read(p)
		d.take(p[:n])
		if err != nil {
			d.ready = append(d.ready, d.keys[:d.matched]...)
			d.matched = 0
			if len(d.ready) > 0 {
				break // the error comes again
			}
			return 0, err
		}
	}
	n := copy(p, d.ready)
	d.ready = d.ready[n:]
	return n, nil
}

// take sorts what was read. What follows the keys is dropped.
func (d *detacher) take(data []byte) {
	for _, b := range data {
		for d.matched > 0 && b != d.keys[d.matched] {
			d.giveUp()
		}
		if b != d.keys[d.matched] {
			d.ready = append(d.ready, b)
			continue
		}
		if d.matched++; d.matched == len(d.keys) {
			d.matched, d.over = 0, true
			return
		}
	}
}

// giveUp hands out the least of what is held back that cannot begin the keys.
func (d *detacher) giveUp() {
	held := d.keys[:d.matched]
	for n := 1; n <= len(held); n++ {
		if rest := held[n:]; bytes.HasPrefix(d.keys, rest) {
			d.ready = append(d.ready, held[:n]...)
			d.matched = len(rest)
			return
		}
	}
}
