package layer

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// FuzzTable checks that a damaged table causes no error but errTable.
func FuzzTable(f *testing.F) {
	for _, s := range seeds(f) {
		var table bytes.Buffer
		if _, err := Unpack(f.Context(), bytes.NewReader(s), &spool{t: f}, &table, Options{}); err == nil {
			f.Add(table.Bytes())
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		table, err := OpenTable(bytes.NewReader(data))
		if err != nil {
			return
		}
		var e tree.Entry
		for err == nil {
			err = table.Next(&e)
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, errTable) {
			t.Errorf("got %v", err)
		}
	})
}

func TestDamagedTableIsRefused(t *testing.T) {
	var table bytes.Buffer
	if _, err := Unpack(t.Context(), bytes.NewReader(seeds(t)[0]), &spool{t: t}, &table, Options{}); err != nil {
		t.Fatal(err)
	}
	for at := range table.Len() {
		for _, damaged := range [][]byte{table.Bytes()[:at], flipped(table.Bytes(), at)} {
			tab, err := OpenTable(bytes.NewReader(damaged))
			var e tree.Entry
			for err == nil {
				err = tab.Next(&e)
			}
			if !errors.Is(err, errTable) {
				t.Fatalf("damage at %d: %v", at, err)
			}
		}
	}
	tab, err := OpenTable(bytes.NewReader(append(table.Bytes(), 0)))
	var e tree.Entry
	for err == nil {
		err = tab.Next(&e)
	}
	if !errors.Is(err, errTable) {
		t.Errorf("extra byte at the end: %v", err)
	}
}

func flipped(p []byte, at int) []byte {
	p = bytes.Clone(p)
	p[at] ^= 1
	return p
}
