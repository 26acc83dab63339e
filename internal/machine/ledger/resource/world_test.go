package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/banger-vm/banger/internal/base/atomicfile"
	"github.com/banger-vm/banger/internal/machine/ledger"
)

// TestMain lets the test binary be the process that is killed.
func TestMain(m *testing.M) {
	if spec := os.Getenv(crashVariable); spec != "" {
		if err := live(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// needRoot gives the test a network of its own, whose thread ends with the
// test, and the tools by which it looks at the host.
func needRoot(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Getuid() != 0 {
		missing = "root"
	}
	for _, tool := range []string{"ip", "losetup", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = err.Error()
		}
	}
	if missing != "" && os.Getenv("CI") == "true" {
		t.Fatal("the test needs ", missing)
	}
	if missing != "" {
		t.Skip("the test needs ", missing)
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
}

// run runs a tool in the thread's network.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, &stderr)
	}
	return string(out)
}

// A world is a data folder with one machine in it, as package vm has them.
type world struct {
	root  string
	id    string
	owner ledger.Owner
}

func newWorld(t *testing.T) world {
	t.Helper()
	w := openWorld(t.TempDir(), machineID())
	t.Cleanup(func() { sweep(t, w) })
	return w
}

// machineID is one that no test beside this one has.
func machineID() string { return fmt.Sprintf("%012x", os.Getpid()) }

func openWorld(root, id string) world {
	owner, err := ledger.NewOwner(id, root)
	if err != nil {
		panic(err)
	}
	return world{root, id, owner}
}

// dir is the machine's folder, record its record.
func (w world) dir() string    { return filepath.Join(w.root, "machines", w.id) }
func (w world) record() string { return filepath.Join(w.dir(), "record.json") }

func (w world) writeRecord(section json.RawMessage) error {
	data, err := json.Marshal(map[string]json.RawMessage{"runtime": section})
	if err != nil {
		return err
	}
	return atomicfile.Write(w.record(), data, 0o600)
}

func (w world) readRecord() ledger.Record {
	var rec struct{ Runtime json.RawMessage }
	if data, err := os.ReadFile(w.record()); err != nil || json.Unmarshal(data, &rec) != nil {
		return ledger.Record{}
	}
	return ledger.Record{Section: rec.Runtime, Write: w.writeRecord}
}

// maker starts a ledger of the machine.
func (w world) maker(t *testing.T) Maker {
	t.Helper()
	if err := os.MkdirAll(w.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(w.dir(), w.id, ledger.Record{Write: w.writeRecord})
	if err != nil {
		t.Fatal(err)
	}
	return Maker{l, w.owner}
}

// leftovers lists what the host has of the machine without a word from the
// package under test.
func leftovers(t *testing.T, w world) (left []string) {
	t.Helper()
	keep := func(what, line string) {
		left = append(left, what+" "+strings.TrimSpace(line))
	}
	for line := range strings.Lines(run(t, "ip", "-o", "link")) {
		if strings.Contains(line, "bgr"+w.id) {
			keep("tap", line)
		}
	}
	for line := range strings.Lines(run(t, "nft", "list", "tables")) {
		if strings.Contains(line, w.id) {
			keep("nft", line)
		}
	}
	for line := range strings.Lines(run(t, "losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE")) {
		if strings.Contains(line, w.root) {
			keep("loop", line)
		}
	}
	if _, err := os.Stat("/dev/mapper/control"); err == nil {
		for line := range strings.Lines(run(t, "dmsetup", "ls")) {
			if strings.Contains(line, w.id) {
				keep("dm", line)
			}
		}
	}
	for _, pid := range sleepers(t, w) {
		keep("process", pid)
	}
	if _, err := os.Lstat(w.dir()); !errors.Is(err, os.ErrNotExist) {
		keep("folder", w.dir())
	}
	return left
}

// sleepers are the processes that sleeper starts, by the folder in their
// environment.
func sleepers(t *testing.T, w world) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), "SLEEPER_OF="+w.dir()+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// sweep makes sure that not even a failed test leaves anything.
func sweep(t *testing.T, w world) {
	t.Helper()
	ctx := context.Background() // the test's own is over
	found, err := Find(ctx, Scope{Data: w.root})
	if err := errors.Join(err, RemoveAll(ctx, found)); err != nil {
		t.Errorf("sweep: %v", err)
	}
}

// sleeper starts a process that outlives this one, with a child.
func sleeper(w world) func(mark string) (int, error) {
	return func(mark string) (int, error) {
		cmd := exec.Command("/bin/sh", "-c", "while :; do sleep 1000; done")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "SLEEPER_OF=" + w.dir(), mark}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		go cmd.Wait()
		return cmd.Process.Pid, nil
	}
}

func hasMapper() bool {
	_, err := os.Stat("/dev/mapper/control")
	return err == nil
}

func find(t *testing.T, w world) []ledger.Entry {
	t.Helper()
	found, err := Find(t.Context(), Scope{Data: w.root})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func kindsOf(entries []ledger.Entry) (kinds []ledger.Kind) {
	for _, e := range entries {
		kinds = append(kinds, e.Kind)
	}
	return slices.Compact(kinds)
}
