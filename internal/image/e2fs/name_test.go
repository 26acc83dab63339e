package e2fs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

// unsafeNames are names that a line for debugfs must never contain, by attack.
var unsafeNames = map[string]string{
	"newline ends the command":         "x\nset_inode_field <2> mode 0",
	"newline at the end":               "x\n",
	"newline at the start":             "\nx",
	"carriage return ends the command": "x\rrm <12>",
	"quote ends the word":              `x" <2> "`,
	"doubled quote":                    `x""y`,
	"lone quote":                       `"`,
	"tab":                              "a\tb",
	"escape sequence":                  "\x1b[2J",
	"start of heading":                 "a\x01",
	"unit separator":                   "a\x1f",
	"delete":                           "a\x7f",
}

// decoys returns a folder with fake programs that write to the file mark when
// they run.
func decoys(t *testing.T) (dir, mark string) {
	t.Helper()
	dir = t.TempDir()
	mark = filepath.Join(dir, "mark")
	for _, name := range []string{"mkfs.ext4", "debugfs"} {
		fake(t, dir, name, "echo ran >> '"+mark+"'\n")
	}
	return dir, mark
}

// fake writes a shell script as the program name.
func fake(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestB5UnsafeNamesAreRefusedBeforeAnythingRuns(t *testing.T) {
	for attack, name := range unsafeNames {
		for kind, add := range map[string]func(w *treeWriter){
			"file":      func(w *treeWriter) { w.file("d/"+name, "data") },
			"directory": func(w *treeWriter) { w.file(name+"/f", "data") },
			"symlink":   func(w *treeWriter) { w.add(tree.Entry{Name: name, Type: tree.Symlink, Linkname: "t"}) },
			"device":    func(w *treeWriter) { w.dev(name, tree.CharDevice, 1, 3) },
			"hard link": func(w *treeWriter) {
				w.file("f", "data")
				w.add(tree.Entry{Name: name, Type: tree.HardLink, Linkname: "f"})
			},
		} {
			t.Run(attack+" in "+kind, func(t *testing.T) {
				w := newTreeWriter(t)
				add(w)
				o := options(t)
				var mark string
				o.ToolDir, mark = decoys(t)
				if err := w.buildError(t.Context(), o); !errors.Is(err, e2fs.ErrUnsafeName) {
					t.Errorf("error is %v", err)
				}
				if _, err := os.Stat(mark); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("a program ran (%v)", err)
				}
			})
		}
	}
}

// TestB5OtherNamesAreUnchanged checks names with every byte that is accepted,
// and with the syntax of debugfs, for each type of inode whose name becomes
// part of a command.
func TestB5OtherNamesAreUnchanged(t *testing.T) {
	names := []string{
		"<2>", "<12>", "#comment", "-w", "-f -", "--", " ", "  two  ", "trailing ", " leading", "it's", `back\slash`, `\"`[:1],
		`\n`, "%s%n", "$(id)", "`id`", ";quit", "!ls", "*", "?", "~", "debugfs: quit", "quit", "ü", "日本", "\xff\xfe", "\u2028", "\u0085",
		strings.Repeat("n", 255), strings.Repeat("ü", 127) + "x", "...", ".hidden", "a,b", "@1", "0", "lost+found", "stage", "disk",
	}
	for c := 0x20; c < 0x100; c++ {
		if s := string([]byte{byte(c)}); !strings.Contains("\x7f\"/.", s) {
			names = append(names, s, "in"+s+"side")
		}
	}
	w := newTreeWriter(t)
	for _, n := range names {
		w.file("f/"+n, n)
		w.dev("c/"+n, tree.CharDevice, 1, 3)
		w.add(tree.Entry{Name: "p/" + n, Type: tree.HardLink, Linkname: "c/" + n})
		w.add(tree.Entry{Name: "l/" + n, Type: tree.Symlink, Linkname: n})
		w.add(tree.Entry{Name: "m/" + n, Type: tree.HardLink, Linkname: "l/" + n})
		w.add(tree.Entry{Name: "d/" + n, Type: tree.Directory, Mode: 0o750})
		w.dev("d/"+n+"/x", tree.BlockDevice, 8, 1)
	}
	tree := w.m.Tree()
	disk, _ := w.build(tree, options(t))
	compare(t, tree, w.spools(), mount(t, disk))
}

func TestLostAndFoundOfTheTree(t *testing.T) {
	w := newTreeWriter(t)
	w.add(tree.Entry{Name: "lost+found", Type: tree.Directory, Mode: 0o750, UID: 7})
	w.file("lost+found/#12", "found")
	tree := w.m.Tree()
	disk, _ := w.build(tree, options(t))
	compare(t, tree, w.spools(), mount(t, disk))

	w = newTreeWriter(t)
	w.file("lost+found", "not a directory")
	if err := w.buildError(t.Context(), options(t)); !strings.Contains(err.Error(), "lost+found") {
		t.Errorf("error is %v", err)
	}
}
