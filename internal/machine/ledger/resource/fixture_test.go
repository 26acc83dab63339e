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

// TestMain runs makeAndRemove instead of the tests if crashVariable is set.
func TestMain(m *testing.M) {
	if spec := os.Getenv(crashVariable); spec != "" {
		if err := makeAndRemove(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// needRoot moves the test's thread into a network namespace of its own; the
// thread ends with the test. It skips the test if the user is not root or if a
// tool is missing by which the test examines the host.
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

// run runs a tool in the thread's network namespace and returns its output.
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

// A testMachine is a data folder with one machine in it, laid out as package
// machine does it.
type testMachine struct {
	root  string
	id    string
	owner ledger.Owner
}

// newTestMachine returns a machine whose resources are removed after the test.
func newTestMachine(t *testing.T) testMachine {
	t.Helper()
	tm := openTestMachine(t.TempDir(), machineID())
	t.Cleanup(func() { removeAll(t, tm) })
	return tm
}

// machineID returns an ID that no test in another process uses at the same time.
func machineID() string { return fmt.Sprintf("%012x", os.Getpid()) }

func openTestMachine(root, id string) testMachine {
	owner, err := ledger.NewOwner(id, root)
	if err != nil {
		panic(err)
	}
	return testMachine{root, id, owner}
}

// dir returns the path of the machine's folder.
func (tm testMachine) dir() string { return filepath.Join(tm.root, "machines", tm.id) }

// record returns the path of the machine's record.
func (tm testMachine) record() string { return filepath.Join(tm.dir(), "record.json") }

func (tm testMachine) writeRecord(section json.RawMessage) error {
	data, err := json.Marshal(map[string]json.RawMessage{"runtime": section})
	if err != nil {
		return err
	}
	return atomicfile.Write(tm.record(), data, 0o600)
}

func (tm testMachine) readRecord() ledger.Record {
	var rec struct{ Runtime json.RawMessage }
	if data, err := os.ReadFile(tm.record()); err != nil || json.Unmarshal(data, &rec) != nil {
		return ledger.Record{}
	}
	return ledger.Record{Section: rec.Runtime, Write: tm.writeRecord}
}

// maker returns a Maker for the machine with a new ledger.
func (tm testMachine) maker(t *testing.T) Maker {
	t.Helper()
	if err := os.MkdirAll(tm.dir(), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := ledger.New(tm.dir(), tm.id, ledger.Record{Write: tm.writeRecord})
	if err != nil {
		t.Fatal(err)
	}
	return Maker{l, tm.owner}
}

// leftovers lists the machine's resources on the host. It uses nothing of the
// package under test.
func leftovers(t *testing.T, tm testMachine) (left []string) {
	t.Helper()
	add := func(kind, line string) {
		left = append(left, kind+" "+strings.TrimSpace(line))
	}
	for line := range strings.Lines(run(t, "ip", "-o", "link")) {
		if strings.Contains(line, "bgr"+tm.id) {
			add("tap", line)
		}
	}
	for line := range strings.Lines(run(t, "nft", "list", "tables")) {
		if strings.Contains(line, tm.id) {
			add("nft", line)
		}
	}
	for line := range strings.Lines(run(t, "losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE")) {
		if strings.Contains(line, tm.root) {
			add("loop", line)
		}
	}
	if _, err := os.Stat("/dev/mapper/control"); err == nil {
		for line := range strings.Lines(run(t, "dmsetup", "ls")) {
			if strings.Contains(line, tm.id) {
				add("dm", line)
			}
		}
	}
	for _, pid := range sleepers(t, tm) {
		add("process", pid)
	}
	if _, err := os.Lstat(tm.dir()); !errors.Is(err, os.ErrNotExist) {
		add("folder", tm.dir())
	}
	return left
}

// sleepers returns the processes that startSleeper has started, by the folder in
// their environment.
func sleepers(t *testing.T, tm testMachine) (pids []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(data), "SLEEPER_OF="+tm.dir()+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(file)))
		}
	}
	return pids
}

// removeAll removes the resources that a failed test has left.
func removeAll(t *testing.T, tm testMachine) {
	t.Helper()
	ctx := context.Background() // the test's context has ended
	found, err := Find(ctx, Scope{Data: tm.root})
	if err := errors.Join(err, RemoveAll(ctx, found)); err != nil {
		t.Errorf("remove the resources of the test: %v", err)
	}
}

// startSleeper returns a function that starts a process with a child. The process
// outlives this one.
func startSleeper(tm testMachine) func(mark string) (int, error) {
	return func(mark string) (int, error) {
		cmd := exec.Command("/bin/sh", "-c", "while :; do sleep 1000; done")
		cmd.Env = []string{"PATH=/usr/bin:/bin", "SLEEPER_OF=" + tm.dir(), mark}
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

func find(t *testing.T, tm testMachine) []ledger.Entry {
	t.Helper()
	found, err := Find(t.Context(), Scope{Data: tm.root})
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
