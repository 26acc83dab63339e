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

// checkSpared asserts that Remove returns nil for e and leaves the resource with
// the name of e alone. state returns the state of that resource.
func checkSpared(t *testing.T, e ledger.Entry, state func() string) {
	t.Helper()
	before := state()
	if before == "" {
		t.Fatal("the resource does not exist")
	}
	if err := Remove(t.Context(), e); err != nil {
		t.Errorf("remove %s: %v", &e, err)
	}
	if after := state(); after != before {
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

func TestRemoveSparesOtherProcesses(t *testing.T) {
	cmd, ended := startSleep(t)
	s, err := readStat(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	tm := openTestMachine(t.TempDir(), machineID())
	ours := ledger.Entry{
		Kind: ledger.Process, Name: "vmm", Owner: tm.owner, Boot: boot(t), PID: cmd.Process.Pid, Start: s.start,
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
	// Remove kills the process if all fields agree.
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
		t.Error("Remove does not refuse to kill this process")
	}
}

func TestProcessThatCannotBeIdentified(t *testing.T) {
	tm := newTestMachine(t)
	m := tm.maker(t)
	failed := errors.New("no program")
	err := m.Process(t.Context(), "vmm", func(string) (int, error) { return 0, failed })
	if !errors.Is(err, failed) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("err = %v, entries %v", err, m.Ledger.Entries())
	}
	// The process runs, and start does not return its number.
	err = m.Process(t.Context(), "vmm", func(mark string) (int, error) {
		_, err := startSleeper(tm)(mark)
		return 0, errors.Join(failed, err)
	})
	if !errors.Is(err, failed) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("err = %v, entries %v", err, m.Ledger.Entries())
	}
	if left := sleepers(t, tm); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
	if err := m.Process(t.Context(), "a/b", startSleeper(tm)); err == nil {
		t.Error("a name with a slash was accepted")
	}
}

func TestRemoveSparesOtherTaps(t *testing.T) {
	needRoot(t)
	tm := openTestMachine(t.TempDir(), machineID())
	name := "bgr" + tm.id
	state := func() string { return run(t, "ip", "-o", "link", "show", "dev", name) }
	run(t, "ip", "tuntap", "add", "dev", name, "mode", "tap")
	first, _, _ := strings.Cut(state(), ":")
	index, err := strconv.Atoi(first)
	if err != nil {
		t.Fatal(err)
	}
	noted := ledger.Entry{Kind: ledger.Tap, Name: name, Owner: tm.owner, Boot: boot(t)}
	identified := noted
	identified.Index = index
	checkSpared(t, noted, state)      // no mark
	checkSpared(t, identified, state) // the index is right, but there is no mark
	run(t, "ip", "link", "set", "dev", name, "alias", "banger ffffffffffff-ffffffff")
	checkSpared(t, identified, state) // the mark of another owner
	run(t, "ip", "link", "set", "dev", name, "alias", "banger "+string(tm.owner))
	identified.Index++
	checkSpared(t, identified, state) // another index
	// Tap does not take over an interface that exists.
	m := tm.maker(t)
	run(t, "ip", "link", "set", "dev", name, "alias", "mine")
	if _, _, err := m.Tap(t.Context(), TapOptions{}); !errors.Is(err, unix.EBUSY) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("tap: %v, entries %v", err, m.Ledger.Entries())
	}
	state() // fails if the interface is gone
	// Remove removes the tap if all fields agree.
	run(t, "ip", "link", "set", "dev", name, "alias", "banger "+string(tm.owner))
	identified.Index--
	if err := Remove(t.Context(), identified); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ip", "-o", "link"); strings.Contains(out, name) {
		t.Errorf("the tap still exists: %s", out)
	}
}

func TestTapEndsWithItsFile(t *testing.T) {
	needRoot(t)
	tm := newTestMachine(t)
	m := tm.maker(t)
	tap, name, err := m.Tap(t.Context(), TapOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(name) > unix.IFNAMSIZ-1 {
		t.Errorf("name %s is too long", name)
	}
	if out := run(t, "ip", "-o", "link", "show", "dev", name); !strings.Contains(out, "alias banger "+string(tm.owner)) {
		t.Errorf("tap has no mark: %s", out)
	}
	if err := tap.Close(); err != nil {
		t.Fatal(err)
	}
	if out := run(t, "ip", "-o", "link"); strings.Contains(out, name) {
		t.Errorf("the tap stays: %s", out)
	}
}

// backing makes a backing file for a loop device and returns its path.
func backing(t *testing.T, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	const size = 1 << 20
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestRemoveSparesOtherLoopDevices(t *testing.T) {
	needRoot(t)
	tm := newTestMachine(t)
	m := tm.maker(t)
	path := backing(t, tm.root, "disk")
	device := strings.TrimSpace(run(t, "losetup", "--find", "--show", path))
	t.Cleanup(func() { exec.Command("losetup", "--detach", device).Run() }) //nolint:errcheck // a failed test may have detached it
	id, _, err := fileID(path)
	if err != nil {
		t.Fatal(err)
	}
	state := func() string { return run(t, "losetup", "--list", "--noheadings", device) }
	e := ledger.Entry{Kind: ledger.Loop, Name: "disk", Owner: tm.owner, Boot: boot(t), Path: path, File: id}
	checkSpared(t, e, state) // attached by another program
	e.Device = device
	checkSpared(t, e, state)
	ours, err := m.Loop(t.Context(), "disk", path, LoopOptions{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	state = func() string { return run(t, "losetup", "--list", "--noheadings", ours.Name()) }
	e = m.Ledger.Entries()[0]
	e.File.Ino++
	checkSpared(t, e, state) // another file
	e = m.Ledger.Entries()[0]
	e.Name = "data"
	checkSpared(t, e, state) // another role in the machine
	// The device and its entry stay as long as the device is open.
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
	tm := openTestMachine(t.TempDir(), machineID())
	m := tm.maker(t)
	for name, path := range map[string]string{"Disk": "/dev/null", "": "/dev/null", "../x": "/dev/null", "disk": filepath.Join(tm.root, "none")} {
		if _, err := m.Loop(t.Context(), name, path, LoopOptions{}); err == nil || len(m.Ledger.Entries()) > 0 {
			t.Errorf("%q on %s: %v, entries %v", name, path, err, m.Ledger.Entries())
		}
	}
}

func TestRemoveSparesOtherFiles(t *testing.T) {
	tm := openTestMachine(t.TempDir(), machineID())
	if err := os.MkdirAll(filepath.Join(tm.dir(), "sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	path := backing(t, tm.dir(), "file")
	id, _, err := fileID(path)
	if err != nil {
		t.Fatal(err)
	}
	state := func() string {
		out, err := exec.CommandContext(t.Context(), "find", tm.root).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	at := func(kind ledger.Kind, path string, file ledger.FileID) ledger.Entry {
		return ledger.Entry{Kind: kind, Name: path, Path: path, Owner: tm.owner, File: file}
	}
	checkSpared(t, at(ledger.Disk, path, ledger.FileID{Dev: id.Dev, Ino: id.Ino + 1}), state)
	checkSpared(t, at(ledger.Socket, path, id), state)
	checkSpared(t, at(ledger.Folder, path, id), state)
	checkSpared(t, at(ledger.Disk, tm.dir(), ledger.FileID{}), state)
	checkSpared(t, at(ledger.Disk, path+"/below", ledger.FileID{}), state)
	link := filepath.Join(tm.dir(), "link")
	if err := os.Symlink(filepath.Join(tm.dir(), "sub"), link); err != nil {
		t.Fatal(err)
	}
	checkSpared(t, at(ledger.Folder, link, ledger.FileID{}), state)
	for _, bad := range []string{
		"", "/", tm.root, filepath.Join(tm.root, "machines"), tm.dir() + "/../other", "machines/" + tm.id, tm.dir() + "x",
	} {
		before := state()
		if err := Remove(t.Context(), at(ledger.Folder, bad, ledger.FileID{})); err == nil {
			t.Errorf("folder %q: no error", bad)
		}
		if state() != before {
			t.Fatalf("folder %q was touched", bad)
		}
	}
	for _, e := range []ledger.Entry{at(ledger.Disk, path, id), at(ledger.Folder, tm.dir(), ledger.FileID{})} {
		if err := Remove(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(e.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", &e, err)
		}
	}
}

func TestFilesRefuseOtherFiles(t *testing.T) {
	tm := openTestMachine(t.TempDir(), machineID())
	m := tm.maker(t)
	path := backing(t, tm.dir(), "disk")
	err := m.Files(t.Context(), ledger.Disk, []string{path}, func() error { return nil })
	if !errors.Is(err, os.ErrExist) || len(m.Ledger.Entries()) > 0 {
		t.Errorf("err = %v, entries %v", err, m.Ledger.Entries())
	}
	if err := m.Files(t.Context(), ledger.Disk, []string{"/etc/x"}, func() error { return nil }); err == nil {
		t.Error("a file outside the machine's folders was accepted")
	}
}

func TestRemoveRefuses(t *testing.T) {
	tm := openTestMachine(t.TempDir(), machineID())
	for name, e := range map[string]ledger.Entry{
		"no owner":            {Kind: ledger.Table, Name: "filter"},
		"another table":       {Kind: ledger.Table, Name: "filter", Owner: tm.owner},
		"an unknown kind":     {Kind: "cpu", Name: "0", Owner: tm.owner},
		"a dm device by name": {Kind: ledger.DM, Name: "vg-root", Owner: tm.owner},
		"a dm device by UUID": {Kind: ledger.DM, Name: "vg-root", Owner: tm.owner, UUID: "LVM-x"},
		"a disk as loop":      {Kind: ledger.Loop, Name: "disk", Owner: tm.owner, Device: "/dev/sda"},
	} {
		if err := Remove(t.Context(), e); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
