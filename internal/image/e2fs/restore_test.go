package e2fs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/banger-vm/banger/internal/image/tree"
)

// TestB5RestorerChecksNamesItself runs the restorer without inspect, which also
// checks the names.
func TestB5RestorerChecksNamesItself(t *testing.T) {
	for attack, e := range map[string]tree.Entry{
		"newline in a file":     {Name: "a\nrm <2>", Type: tree.Regular},
		"quote in a device":     {Name: `d/a" b "`, Type: tree.CharDevice},
		"return in a directory": {Name: "a\r/b", Type: tree.Regular},
		"control in a symlink":  {Name: "a\x08", Type: tree.Symlink, Linkname: "x"},
		"delete in a deep path": {Name: "a/b/c/d/\x7f", Type: tree.Fifo},
	} {
		m := tree.NewMerger(tree.Options{})
		if err := errors.Join(m.NextLayer(), m.Add(&e)); err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		decoy, mark := filepath.Join(dir, "debugfs"), filepath.Join(dir, "mark")
		if err := os.WriteFile(decoy, []byte("#!/bin/sh\necho ran > '"+mark+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		work, err := newWorkspace(dir, filepath.Join(dir, "disk"))
		if err != nil {
			t.Fatal(err)
		}
		r := restorer{tree: m.Tree(), work: work, debugfs: decoy}
		if err := r.run(t.Context()); !errors.Is(err, ErrUnsafeName) {
			t.Errorf("%s: error is %v", attack, err)
		}
		if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: debugfs ran (%v)", attack, err)
		}
		if err := work.remove(); err != nil {
			t.Error(err)
		}
	}
}

// TestB5QuoteChecksItsWord checks that quote refuses an unsafe name itself.
func TestB5QuoteChecksItsWord(t *testing.T) {
	if got, err := quote("a b'c"); got != `"a b'c"` || err != nil {
		t.Errorf("quote gives %s, %v", got, err)
	}
	if got, err := quote("a\nb"); !errors.Is(err, ErrUnsafeName) {
		t.Errorf("quote gives %s, %v", got, err)
	}
}
