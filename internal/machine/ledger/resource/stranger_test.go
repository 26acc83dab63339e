package resource

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// spared removes e, which is no error, and asserts by look that what has its
// name is there as before.
func spared(t *testing.T, e ledger.Entry, look func() string) {
	t.Helper()
	before := look()
	if before == "" {
		t.Fatal("there is nothing to spare")
	}
	if err := Remove(t.Context(), e); err != nil {
		t.Errorf("remove %s: %v", &e, err)
	}
	if after := look(); after != before {
		t.Errorf("%s was touched: %q became %q", &e, before, after)
	}
}

func boot(t *testing.T) string {
	t.Helper()
	id, err := BootID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func startSleep(t *testing.T) (cmd *exec.Cmd, ended chan error) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended = make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, ended
}

func TestOtherProcessesAreSpared(t *testing.T) {
	cmd, ended := startSleep(t)
	s, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	w := openWorld(t.TempDir(), machineID())
	ours := ledger.Entry{
		Kind: ledger.Process, Name: "vmm", Owner: w.owner, Boot: boot(t), PID: cmd.Process.Pid, Start: s.start,
	}
	for name, change := range map[string]func(e *ledger.Entry){
		"another start time": func(e *ledger.Entry) { e.Start-- },
		"another boot":       func(e *ledger.Entry) { e.Boot = "00000000-0000-0000-0000-000000000000" },
		"no number":          func(e *ledger.Entry) { e.PID = 0 },
		"no such process":    func(e *ledger.Entry) { e.PID = 1 << 30 },
	} {
		t.Run(name, func(t *testing.T) {
			e := ours
			change(&e)
			if alive, err := Alive(e); alive || err != nil {
				t.Errorf("alive: %v, %v", alive, err)
			}
			if err := Remove(t.Context(), e); err != nil {
				t.Error(err)
			}
			select {
			case err := <-ended:
				t.Fatalf("the process was killed: %v", err)
			default:
			}
			if s, err := readStat(cmd.Process.Pid); err != nil || s.ended() {
				t.Fatalf("the process was killed: %v, %v", s, err)
			}
		})
	}
	if alive, err := Alive(ours); !alive || err != nil {
		t.Errorf("alive: %v, %v", alive, err)
	}
	// The rows above can fail: with all of it right it is killed.
	if err := Remove(t.Context(), ours); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended with %v", err)
	}
	if err := Remove(t.Context(), ours); err != nil {
		t.Errorf("again: %v", err)
	}
	self := ours
	self.PID = os.Getpid()
	if err := Remove(t.Context(), self); err == nil {
		t.Error("it would have killed this process")
	}
}

func TestProcessThatCannotBeIdentified(t *testing.T) {
	w := newWorld(t)
	m := w.maker(t)
	failed := errors.New("no program")
	err := m.Process(t.Context(), "vmm", func(string) (int, error) { return 0, failed })
	if !errors.Is(err, failed) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("err = %v, entries %v", err, m.Ledger.Entries())
	}
	// It runs, and its number is lost.
	err = m.Process(t.Context(), "vmm", func(mark string) (int, error) {
		_, err := sleeper(w)(mark)
		return 0, errors.Join(failed, err)
	})
	if !errors.Is(err, failed) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("err = %v, entries %v", err, m.Ledger.Entries())
	}
	if left := sleepers(t, w); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if err := m.Process(t.Context(), "a/b", sleeper(w)); err == nil {
		t.Error("a name with a slash was taken")
	}
}

func TestOtherTapsAreSpared(t *testing.T) {
	needRoot(t)
	w := openWorld(t.TempDir(), machineID())
	name := "bgr" + w.id
	look := func() string { return run(t, "ip", "-o", "link", "show", "dev", name) }
	run(t, "ip", "tuntap", "add", "dev", name, "mode", "tap")
	first, _, _ := strings.Cut(look(), ":")
	index, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	noted := ledger.Entry{Kind: ledger.Tap, Name: name, Owner: w.owner, Boot: boot(t)}
	identified := noted
	identified.Index = index
	spared(t, noted, look)      // no mark
	spared(t, identified, look) // likewise, though the index is right
	run(t, "ip", "link", "set", "dev", name, "alias", "banger ffffffffffff-ffffffff")
	spared(t, identified, look) // another's mark
	run(t, "ip", "link", "set", "dev", name, "alias", "banger "+string(w.owner))
	identified.Index++
	spared(t, identified, look) // another index
	// A machine does not join what is there.
	m := w.maker(t)
	run(t, "ip", "link", "set", "dev", name, "alias", "mine")
	if _, _, err := m.Tap(t.Context(), TapOptions{}); !errors.Is(err, unix.EBUSY) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("tap: %v, entries %v", err, m.Ledger.Entries())
	}
	look()
	// All of it right.
	run(t, "ip", "link", "set", "dev", name, "alias", "banger "+string(w.owner))
	identified.Index--
	if err := Remove(t.Context(), identified); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ip", "-o", "link"); strings.Contains(out, name) {
		t.Errorf("the tap is there still: %s", out)
	}
}

func TestTapGoesWithItsFile(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	m := w.maker(t)
	tap, name, err := m.Tap(t.Context(), TapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(name) > unix.IFNAMSIZ-1 {
		t.Errorf("name %s is too long", name)
	}
	if out := run(t, "ip", "-o", "link", "show", "dev", name); !strings.Contains(out, "alias banger "+string(w.owner)) {
		t.Errorf("tap has no mark: %s", out)
	}
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ip", "-o", "link"); strings.Contains(out, name) {
		t.Errorf("the tap stays: %s", out)
	}
}

func backing(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	const size = 1 << 20
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOtherLoopDevicesAreSpared(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	m := w.maker(t)
	path := backing(t, w.root, "disk")
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", path))
	t.Cleanup(func() { exec.Command("losetup", "--detach", device).Run() }) //nolint:errcheck // it may be detached
	id, _, err := fileID(path)
	if err != nil {
		t.Fatal(err)
	}
	look := func() string { return run(t, "losetup", "--list", "--noheadings", device) }
	e := ledger.Entry{Kind: ledger.Loop, Name: "disk", Owner: w.owner, Boot: boot(t), Path: path, File: id}
	spared(t, e, look) // attached by somebody else
	e.Device = device
	spared(t, e, look) // likewise
	ours, err := m.Loop(t.Context(), "disk", path, LoopOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	look = func() string { return run(t, "losetup", "--list", "--noheadings", ours.Name()) }
	e = m.Ledger.Entries()[0]
	e.File.Ino++
	spared(t, e, look) // another file
	e = m.Ledger.Entries()[0]
	e.Name = "data"
	spared(t, e, look) // another part of the machine
	// While it is open the device stays, and so does the entry.
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.Ledger.Teardown(ctx, Remove); !errors.Is(err, context.DeadlineExceeded) || len(m.Ledger.Entries()) != 1 {
		t.Errorf("teardown of a device in use: %v, entries %v", err, m.Ledger.Entries())
	}
	ours.Close()
	if err := m.Ledger.Teardown(t.Context(), Remove); err != nil || len(m.Ledger.Entries()) != 0 {
		t.Errorf("teardown: %v, entries %v", err, m.Ledger.Entries())
	}
	if out := run(t, "losetup", "--list", "--noheadings", "--output", "NAME", "--associated", path); strings.TrimSpace(out) != device {
		t.Errorf("devices of the file: %q, want %s alone", out, device)
	}
}

func TestLoopRefuses(t *testing.T) {
	w := openWorld(t.TempDir(), machineID())
	m := w.maker(t)
	for name, path := range map[string]string{"Disk": "/dev/null", "": "/dev/null", "../x": "/dev/null", "disk": filepath.Join(w.root, "none")} {
		if _, err := m.Loop(t.Context(), name, path, LoopOptions{}); err == nil || len(m.Ledger.Entries()) > 0 {
			t.Errorf("%q on %s: %v, entries %v", name, path, err, m.Ledger.Entries())
		}
	}
}

func TestOtherFilesAreSpared(t *testing.T) {
	w := openWorld(t.TempDir(), machineID())
	if err := os.MkdirAll(filepath.Join(w.dir(), "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := backing(t, w.dir(), "file")
	id, _, err := fileID(path)
	if err != nil {
		t.Fatal(err)
	}
	look := func() string {
		out, err := exec.CommandContext(t.Context(), "find", w.root).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	at := func(kind ledger.Kind, path string, file ledger.FileID) ledger.Entry {
		return ledger.Entry{Kind: kind, Name: path, Path: path, Owner: w.owner, File: file}
	}
	spared(t, at(ledger.Disk, path, ledger.FileID{Dev: id.Dev, Ino: id.Ino + 1}), look)
	spared(t, at(ledger.Socket, path, id), look)
	spared(t, at(ledger.Folder, path, id), look)
	spared(t, at(ledger.Disk, w.dir(), ledger.FileID{}), look)
	spared(t, at(ledger.Disk, path+"/below", ledger.FileID{}), look)
	link := filepath.Join(w.dir(), "link")
	if err := os.Symlink(filepath.Join(w.dir(), "sub"), link); err != nil {
		t.Fatal(err)
	}
	spared(t, at(ledger.Folder, link, ledger.FileID{}), look)
	for _, bad := range []string{
		"", "/", w.root, filepath.Join(w.root, "machines"), w.dir() + "/../other", "machines/" + w.id, w.dir() + "x",
	} {
		before := look()
		if err := Remove(t.Context(), at(ledger.Folder, bad, ledger.FileID{})); err == nil {
			t.Errorf("folder %q: no error", bad)
		}
		if look() != before {
			t.Fatalf("folder %q was touched", bad)
		}
	}
	for _, e := range []ledger.Entry{at(ledger.Disk, path, id), at(ledger.Folder, w.dir(), ledger.FileID{})} {
		if err := Remove(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(e.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", &e, err)
		}
	}
}

func TestFileRefusesWhatIsThere(t *testing.T) {
	w := openWorld(t.TempDir(), machineID())
	m := w.maker(t)
	path := backing(t, w.dir(), "disk")
	err := m.Files(t.Context(), ledger.Disk, []string{path}, func() error { return nil })
	if !errors.Is(err, os.ErrExist) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("err = %v, entries %v", err, m.Ledger.Entries())
	}
	if err := m.Files(t.Context(), ledger.Disk, []string{"/etc/x"}, func() error { return nil }); err == nil {
		t.Error("a file outside of the machine's folders was taken")
	}
}

func TestRemoveRefuses(t *testing.T) {
	w := openWorld(t.TempDir(), machineID())
	for name, e := range map[string]ledger.Entry{
		"no owner":            {Kind: ledger.Table, Name: "filter"},
		"a table of others'":  {Kind: ledger.Table, Name: "filter", Owner: w.owner},
		"a kind it knows not": {Kind: "cpu", Name: "0", Owner: w.owner},
		"a dm device by name": {Kind: ledger.DM, Name: "vg-root", Owner: w.owner},
		"a dm device by UUID": {Kind: ledger.DM, Name: "vg-root", Owner: w.owner, UUID: "LVM-x"},
		"a disk as loop":      {Kind: ledger.Loop, Name: "disk", Owner: w.owner, Device: "/dev/sda"},
	} {
		if err := Remove(t.Context(), e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
