package treediff

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var stamp = time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)

// plant creates a tree with one inode of each kind that needs no privilege. Each call creates the same tree.
func plant(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	must(t, os.Mkdir(root, 0o755))
	must(t, os.Mkdir(filepath.Join(root, "dir"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "dir/file"), []byte("content\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "other"), []byte("content\n"), 0o644))
	must(t, os.Link(filepath.Join(root, "other"), filepath.Join(root, "other-too")))
	must(t, os.Symlink("file", filepath.Join(root, "dir/link")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	must(t, unix.Setxattr(filepath.Join(root, "dir/file"), "user.note", []byte("a"), 0))
	setTimes(t, root)
	return root
}

// setTimes sets the same time on every inode, also on the directories that a test has changed.
func setTimes(t *testing.T, root string) {
	t.Helper()
	ts := unix.NsecToTimespec(stamp.UnixNano())
	must(t, filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		must(t, err)
		return unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
	}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, root string) Tree {
	t.Helper()
	tree, err := Scan(root)
	must(t, err)
	return tree
}

func TestEqualTreesDoNotDiffer(t *testing.T) {
	a, b := scan(t, plant(t)), scan(t, plant(t))
	if len(a) != 7 {
		t.Errorf("scan has %d paths, want 7", len(a))
	}
	if diffs := Diff(a, b); len(diffs) != 0 {
		t.Errorf("two equal trees differ: %v", diffs)
	}
}

// TestEveryFieldCanDiffer changes one thing at a time and checks that the comparison reports exactly that.
func TestEveryFieldCanDiffer(t *testing.T) {
	at := func(root, path string) string { return filepath.Join(root, path) }
	rows := []struct {
		name   string
		root   bool // only root can make the change
		change func(t *testing.T, root string)
		want   []string
	}{
		{"a missing file", false, func(t *testing.T, r string) { must(t, os.Remove(at(r, "dir/file"))) },
			[]string{"dir/file presence"}},
		{"an extra file", false, func(t *testing.T, r string) { must(t, os.WriteFile(at(r, "extra"), nil, 0o644)) },
			[]string{"extra presence"}},
		{"content of the same length", false, func(t *testing.T, r string) { must(t, os.WriteFile(at(r, "dir/file"), []byte("Content\n"), 0o644)) },
			[]string{"dir/file sha256"}},
		{"a longer file", false, func(t *testing.T, r string) {
			must(t, os.WriteFile(at(r, "dir/file"), []byte("content\n\n"), 0o644))
		},
			[]string{"dir/file sha256", "dir/file size"}},
		{"mode", false, func(t *testing.T, r string) { must(t, os.Chmod(at(r, "dir/file"), 0o640)) },
			[]string{"dir/file mode"}},
		{"setuid", false, func(t *testing.T, r string) { must(t, unix.Chmod(at(r, "dir/file"), 0o4644)) },
			[]string{"dir/file mode"}},
		{"mode of the root", false, func(t *testing.T, r string) { must(t, os.Chmod(r, 0o700)) },
			[]string{". mode"}},
		{"owner", true, func(t *testing.T, r string) { must(t, os.Lchown(at(r, "dir/link"), 70000, 0)) },
			[]string{"dir/link owner"}},
		{"group", true, func(t *testing.T, r string) { must(t, os.Lchown(at(r, "fifo"), 0, 70000)) },
			[]string{"fifo owner"}},
		{"symlink target", false, func(t *testing.T, r string) {
			must(t, os.Remove(at(r, "dir/link")))
			must(t, os.Symlink("elif", at(r, "dir/link")))
		}, []string{"dir/link target"}},
		{"a broken link group", false, func(t *testing.T, r string) {
			must(t, os.Remove(at(r, "other-too")))
			must(t, os.WriteFile(at(r, "other-too"), []byte("content\n"), 0o644))
		}, []string{"other links", "other-too group", "other-too links"}},
		{"a link to another inode of the same content", false, func(t *testing.T, r string) {
			must(t, os.Remove(at(r, "other-too")))
			must(t, os.Link(at(r, "dir/file"), at(r, "other-too")))
		}, []string{"dir/file links", "other links", "other-too group", "other-too xattr:user.note"}},
		{"an xattr's value", false, func(t *testing.T, r string) {
			must(t, unix.Setxattr(at(r, "dir/file"), "user.note", []byte("b"), 0))
		},
			[]string{"dir/file xattr:user.note"}},
		{"a missing xattr", false, func(t *testing.T, r string) { must(t, unix.Removexattr(at(r, "dir/file"), "user.note")) },
			[]string{"dir/file xattr:user.note"}},
		{"an extra empty xattr", false, func(t *testing.T, r string) { must(t, unix.Setxattr(at(r, "dir"), "user.more", nil, 0)) },
			[]string{"dir xattr:user.more"}},
		{"type", false, func(t *testing.T, r string) {
			must(t, os.Remove(at(r, "fifo")))
			must(t, os.Mkdir(at(r, "fifo"), 0o600))
		}, []string{"fifo group", "fifo links", "fifo type"}},
		{"device numbers", true, func(t *testing.T, r string) {
			must(t, os.Remove(at(r, "fifo")))
			must(t, unix.Mknod(at(r, "fifo"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3))))
		}, []string{"fifo device", "fifo type"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.root && os.Geteuid() != 0 {
				t.Skip("needs root")
			}
			want := scan(t, plant(t))
			changed := plant(t)
			row.change(t, changed)
			setTimes(t, changed)
			expect(t, row.want, Diff(want, scan(t, changed)))
		})
	}
}

func TestTimesCanDiffer(t *testing.T) {
	want := scan(t, plant(t))
	for _, row := range []struct {
		field string
		time  time.Time
	}{{"seconds", stamp.Add(time.Second)}, {"nanoseconds", stamp.Add(1)}} {
		t.Run(row.field, func(t *testing.T) {
			changed := plant(t)
			ts := unix.NsecToTimespec(row.time.UnixNano())
			link := filepath.Join(changed, "dir/link")
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, link, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
			expect(t, []string{"dir/link " + row.field}, Diff(want, scan(t, changed)))
		})
	}
}

func TestScanOfNothingFails(t *testing.T) {
	if _, err := Scan(filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("scan of a missing folder succeeds")
	}
}

func expect(t *testing.T, want []string, diffs []Difference) {
	t.Helper()
	var got []string
	for _, d := range diffs {
		got = append(got, d.Path+" "+d.Field)
	}
	if len(got) != len(want) {
		t.Fatalf("differences %q, want %q", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("differences %q, want %q", got, want)
		}
	}
}
