package e2fs_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/image/e2fs"
	"github.com/banger-vm/banger/internal/image/tree"
)

// smallTree returns a tree that needs every step of the restorer: listing
// inodes, making devices and setting fields.
func smallTree(t *testing.T) *treeWriter {
	w := newTreeWriter(t)
	w.file("d/f", "data")
	w.dev("d/null", tree.CharDevice, 1, 3)
	return w
}

// TestB4FailingDebugfsFailsTheBuild replaces debugfs by scripts that change its
// output. They exit with 0 unless the script has another code.
func TestB4FailingDebugfsFailsTheBuild(t *testing.T) {
	needTools(t, "mkfs.ext4", "debugfs")
	genuine, err := tool("debugfs")
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, want string }{
		"a field is refused": {
			`"$REAL" "$@" 2>&1 | sed '/mode 0100644/a set_inode_field: Attempt to write to block'`,
			`debugfs command "set_inode_field <`},
		"it prints unknown text at the end": {`"$REAL" "$@" 2>&1; echo 'debugfs: oops'`, "oops"},
		"it cannot open the disk":           {`"$REAL" "$@.no" 2>&1`, `debugfs command "open disk"`},
		"it dies half way":                  {`"$REAL" "$@" 2>&1 | head -n 20`, "ended before"},
		"it prints nothing":                 {`:`, "ended before"},
		"it exits with 1":                   {`"$REAL" "$@" 2>&1; exit 1`, "exit status 1"},
		"the host is full": {
			`"$REAL" "$@" 2>&1 | sed '/links_count\|gid 5/a set_inode_field: No space left on device while writing inode'`,
			"no space left"},
		"it makes no device": {`"$REAL" "$@" 2>&1 | grep -v Allocated`, "no inode"},
		"it makes a device of inode 0": {
			`"$REAL" "$@" 2>&1 | sed 's/^Allocated inode: .*/Allocated inode: 0/'`, "no inode"},
		"a file is missing":         {`"$REAL" "$@" 2>&1 | grep -v '^/.*/f/'`, "missing"},
		"a file is not in the tree": {`"$REAL" "$@" 2>&1 | sed 's|^\(/.*\)/f/|&4/\n\1/g/|'`, "not in the tree"},
		"an entry is garbled":       {`"$REAL" "$@" 2>&1 | sed 's|^/.*/f/.*|/x|'`, "not an entry"},
		"a number is out of range":  {`"$REAL" "$@" 2>&1 | sed 's|^/[0-9]*\(/.*/f/\)|/99999999999\1|'`, "not an entry"},
		"commands are out of order": {`"$REAL" "$@" 2>&1 | tac`, "debugfs command"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			o.ToolDir = withFake(t, "debugfs", "REAL='"+genuine+"'\n"+c.text+"\n")
			err := smallTree(t).buildError(t.Context(), o)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			if full := strings.Contains(name, "full"); full != errors.Is(err, syscall.ENOSPC) {
				t.Errorf("error %v is ENOSPC: %v", err, !full)
			}
		})
	}
}

// withFake returns a folder with the real programs, except that the program
// name is a shell script.
func withFake(t *testing.T, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range []string{"mkfs.ext4", "debugfs"} {
		if n == name {
			fake(t, dir, n, text)
			continue
		}
		path, err := tool(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, n)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestB4FailingMkfsFailsTheBuild(t *testing.T) {
	for text, want := range map[string]string{
		"echo mkfs.ext4: broken >&2; exit 1":                       "mkfs.ext4: broken",
		"echo 'Warning: inode already set'":                        "inode already set",
		"yes long | head -c 100000; exit 3":                        "exit status 3",
		"echo 'No space left on device while writing' >&2; exit 1": "no space left on device",
	} {
		o := options(t)
		o.ToolDir, _ = decoys(t)
		fake(t, o.ToolDir, "mkfs.ext4", text+"\n")
		err := smallTree(t).buildError(t.Context(), o)
		if !strings.Contains(err.Error(), want) || len(err.Error()) > 1200 {
			t.Errorf("%s: error is %v", text, err)
		}
	}
}

func TestMissingToolIsNamed(t *testing.T) {
	for _, installed := range []string{"", "mkfs.ext4"} {
		o := options(t)
		o.ToolDir = t.TempDir()
		want := "mkfs.ext4"
		if installed != "" {
			fake(t, o.ToolDir, installed, "exit 1\n")
			want = "debugfs"
		}
		err := smallTree(t).buildError(t.Context(), o)
		if missing, ok := errors.AsType[*e2fs.MissingToolError](err); !ok || missing.Name != want {
			t.Errorf("error is %v, want %s missing", err, want)
		}
	}
}

// TestToolsOutsideOfPath builds with the $PATH of a plain user, which lacks the
// folders for system programs.
func TestToolsOutsideOfPath(t *testing.T) {
	needTools(t, "mkfs.ext4", "debugfs", "e2fsck")
	w := smallTree(t)
	tree, disk := w.m.Tree(), filepath.Join(t.TempDir(), "disk")
	t.Setenv("PATH", "/usr/bin:/bin")
	if _, err := e2fs.Build(t.Context(), tree, w.spools(), disk, options(t), nil); err != nil {
		t.Fatal(err)
	}
	fsck(t, disk)
}

func TestCancelWhileStaging(t *testing.T) {
	w := newTreeWriter(t)
	w.file("a", "first")
	w.file("b", strings.Repeat("x", 3*mib))
	o := options(t)
	var mark string
	o.ToolDir, mark = decoys(t)
	ctx, cancel := context.WithCancel(t.Context())
	disk := filepath.Join(t.TempDir(), "disk")
	_, err := e2fs.Build(ctx, w.m.Tree(), w.spools(), disk, o, func(done, _ int64) {
		if done > mib {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	for _, path := range []string{disk, mark} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s exists (%v)", path, err)
		}
	}
}

// TestCancelWhileProgramRuns cancels a build while a program and its child run.
// The program reports both process numbers through a fifo.
func TestCancelWhileProgramRuns(t *testing.T) {
	needTools(t, "mkfs.ext4", "debugfs")
	for _, name := range []string{"mkfs.ext4", "debugfs"} {
		o := options(t)
		fifo := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(fifo, 0o600); err != nil {
			t.Fatal(err)
		}
		o.ToolDir = withFake(t, name, fmt.Sprintf("sleep 600 & echo $! $$ > '%s'; wait\n", fifo))
		ctx, cancel := context.WithCancel(t.Context())
		pids := make(chan string)
		go func() {
			text, err := os.ReadFile(fifo)
			cancel()
			pids <- fmt.Sprint(string(text), err)
		}()
		err := smallTree(t).buildError(ctx, o)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: error is %v", name, err)
		}
		f := strings.Fields(<-pids)
		if len(f) != 3 || f[2] != "<nil>" {
			t.Fatalf("%s: process numbers are %q", name, f)
		}
		for _, pid := range f[:2] {
			waitForExit(t, pid)
		}
	}
}

// waitForExit waits until a process has exited. It accepts a zombie, whose
// parent has not waited for it yet.
func waitForExit(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.PidfdOpen(n, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Close(fd); err != nil {
			t.Error(err)
		}
	}()
	const timeout = 10000 // ms
	if got, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, timeout); got != 1 {
		t.Errorf("process %s still runs (%v)", pid, err)
	}
}
