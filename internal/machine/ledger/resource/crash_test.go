package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// crashVariable makes the test binary make and remove the resources of a machine.
// Its value is the data folder, the machine's ID, the number of the ledger write
// at which the process kills itself (0 for none), and "before" or "after": the
// process is killed before or after the write of the record's copy.
const crashVariable = "BANGER_TEST_CRASH"

// makeAndRemove makes a resource of each kind and removes them all.
func makeAndRemove(spec string) error {
	f := strings.Split(spec, ",")
	tm := openTestMachine(f[0], f[1])
	at, err := strconv.Atoi(f[2])
	if err != nil {
		return err
	}
	writes := 0
	write := func(section json.RawMessage) error {
		writes++
		if writes == at && f[3] == "before" {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), block())
		}
		err := tm.writeRecord(section)
		if writes == at {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), block())
		}
		return err
	}
	if err := os.MkdirAll(tm.dir(), 0o700); err != nil {
		return err
	}
	l, err := ledger.New(tm.dir(), tm.id, ledger.Record{Write: write})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := makeAll(ctx, Maker{l, tm.owner}, tm); err != nil {
		return err
	}
	if err := errors.Join(l.Teardown(ctx, Remove), l.Clear()); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, writes)
	return os.RemoveAll(tm.dir())
}

// block never returns: the process waits for its own SIGKILL.
func block() error { select {} }

// makeAll makes a resource of each kind that the host supports.
func makeAll(ctx context.Context, m Maker, tm testMachine) error {
	disk, sock := filepath.Join(tm.dir(), "disk.img"), filepath.Join(tm.dir(), "run", "s.sock")
	err := m.Files(ctx, ledger.Folder, []string{filepath.Dir(sock)}, func() error { return os.Mkdir(filepath.Dir(sock), 0o700) })
	if err != nil {
		return err
	}
	const size = 1 << 20
	err = m.Files(ctx, ledger.Disk, []string{disk}, func() error { return os.WriteFile(disk, make([]byte, size), 0o600) })
	if err != nil {
		return err
	}
	err = m.Files(ctx, ledger.Socket, []string{sock}, func() error { return listen(sock) })
	if err != nil {
		return err
	}
	loop, err := m.Loop(ctx, "disk", disk, LoopOptions{})
	if err != nil {
		return err
	}
	defer loop.Close()
	if hasMapper() {
		if err := makeSnapshot(ctx, m, tm, loop.Name()); err != nil {
			return err
		}
	}
	if _, err := m.Table(ctx); err != nil {
		return err
	}
	tap, _, err := m.Tap(ctx, TapOptions{Persist: true})
	if err != nil {
		return err
	}
	defer tap.Close()
	return m.Process(ctx, "vmm", startSleeper(tm))
}

// listen leaves a Unix socket at path.
func listen(path string) error {
	dir, err := os.Open(filepath.Dir(path)) // the path may be too long for a socket's
	if err != nil {
		return err
	}
	defer dir.Close()
	name := fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: name, Net: "unix"})
	if err != nil {
		return err
	}
	l.SetUnlinkOnClose(false)
	return l.Close()
}

// makeSnapshot makes a device-mapper snapshot over the device origin.
func makeSnapshot(ctx context.Context, m Maker, tm testMachine, origin string) error {
	cow := filepath.Join(tm.dir(), "cow.img")
	const size, sectors = 1 << 20, 1 << 20 / SectorSize
	err := m.Files(ctx, ledger.Disk, []string{cow}, func() error { return os.WriteFile(cow, make([]byte, size), 0o600) })
	if err != nil {
		return err
	}
	loop, err := m.Loop(ctx, "cow", cow, LoopOptions{AutoClear: true})
	if err != nil {
		return err
	}
	defer loop.Close()
	_, err = m.Device(ctx, "root", DeviceOptions{}, SnapshotTarget(origin, loop.Name(), sectors))
	return err
}

// child returns the command of a test binary that runs makeAndRemove.
func child(t *testing.T, tm testMachine, at int, when string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%s,%d,%s", crashVariable, tm.root, tm.id, at, when))
	cmd.WaitDelay = time.Second
	return cmd
}

// damages are the states of the two copies of the ledger after the crash.
var damages = []struct {
	name string
	do   func(tm testMachine) error
}{
	{"both copies intact", func(testMachine) error { return nil }},
	{"without handles.json", func(tm testMachine) error { return os.RemoveAll(filepath.Join(tm.dir(), ledger.FileName)) }},
	{"with the record damaged", func(tm testMachine) error { return damage(tm.record()) }},
	{"with both damaged", func(tm testMachine) error {
		return errors.Join(damage(tm.record()), damage(filepath.Join(tm.dir(), ledger.FileName)))
	}},
}

// damage overwrites the file at path, if it exists.
func damage(path string) error {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, os.WriteFile(path, []byte("\x00"), 0o600))
}

// recoverMachine removes the resources of a machine whose process was killed, as
// the daemon does: by the ledger, or by marks if no copy of it is intact.
func recoverMachine(t *testing.T, tm testMachine) (byLedger bool) {
	t.Helper()
	if _, err := os.Lstat(tm.dir()); errors.Is(err, os.ErrNotExist) {
		return false
	}
	l, _, err := ledger.Open(tm.dir(), tm.id, tm.readRecord())
	switch {
	case err == nil:
		if err := l.Teardown(t.Context(), Remove); err != nil {
			t.Fatalf("teardown: %v", err)
		}
		if err := os.RemoveAll(tm.dir()); err != nil {
			t.Fatal(err)
		}
		return true
	case !errors.Is(err, ledger.ErrNoLedger):
		t.Fatal(err)
	}
	if err := errors.Join(RemoveAll(t.Context(), find(t, tm)), os.RemoveAll(tm.dir())); err != nil {
		t.Fatal(err)
	}
	return false
}

// countWrites runs makeAndRemove without a crash and returns its number of ledger
// writes. It asserts that no resource is left.
func countWrites(t *testing.T, tm testMachine) int {
	t.Helper()
	cmd := child(t, tm, 0, "")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("child: %v: %s", err, &stderr)
	}
	writes, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || writes < 17 {
		t.Fatalf("%q writes, %v: want one or more for each step", out, err)
	}
	if left := leftovers(t, tm); len(left) > 0 {
		t.Fatalf("a child without a crash leaves %q", left)
	}
	return writes
}

// TestKilledAtEveryStep kills the process at each write of the ledger. Recovery
// leaves nothing, with the ledger and without it.
func TestKilledAtEveryStep(t *testing.T) {
	needRoot(t)
	tm := newTestMachine(t)
	writes := countWrites(t, tm)
	most, byLedger := 0, 0
	for at := 1; at <= writes; at++ {
		for i, when := range []string{"before", "after"} {
			if testing.Short() && (at/len(damages))%2 != i {
				continue // each step once, with the damages in turn
			}
			for j, d := range damages {
				if (at+i)%len(damages) != j {
					continue // each step with two damages, each damage at half of the steps
				}
				name := fmt.Sprintf("killed %s write %d, %s", when, at, d.name)
				if err := child(t, tm, at, when).Run(); err == nil {
					t.Fatalf("%s: the child succeeded", name)
				}
				most = max(most, len(leftovers(t, tm)))
				if err := d.do(tm); err != nil {
					t.Fatal(err)
				}
				if recoverMachine(t, tm) {
					byLedger++
				}
				if left := leftovers(t, tm); len(left) > 0 {
					t.Fatalf("%s: recovery leaves %q", name, left)
				}
			}
		}
	}
	// Without this the test passes if leftovers lists nothing.
	if want := 6; most < want || byLedger == 0 {
		t.Errorf("at most %d leftovers before a recovery, %d recoveries by a ledger: want %d or more, and some", most, byLedger, want)
	}
}

// TestKilledAnywhere kills the process at random times.
func TestKilledAnywhere(t *testing.T) {
	needRoot(t)
	tm := newTestMachine(t)
	start := time.Now()
	countWrites(t, tm)
	whole := time.Since(start)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	runs := 16
	if testing.Short() {
		runs = 4
	}
	for n := range runs {
		cmd := child(t, tm, 0, "")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(random.Int64N(int64(whole)))
		timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
		cmd.Wait()
		timer.Stop()
		d := damages[n%len(damages)]
		if err := d.do(tm); err != nil {
			t.Fatal(err)
		}
		recoverMachine(t, tm)
		if left := leftovers(t, tm); len(left) > 0 {
			t.Fatalf("killed after %v, %s: recovery leaves %q", after, d.name, left)
		}
	}
}

// TestFind finds each resource of a machine by its mark, and none of them for
// another owner.
func TestFind(t *testing.T) {
	needRoot(t)
	tm := newTestMachine(t)
	m := tm.maker(t)
	if err := makeAll(t.Context(), m, tm); err != nil {
		t.Fatal(err)
	}
	want := []ledger.Kind{ledger.Process, ledger.Tap, ledger.Table, ledger.DM, ledger.Loop}
	if !hasMapper() {
		want = slices.DeleteFunc(want, func(k ledger.Kind) bool { return k == ledger.DM })
	}
	found := find(t, tm)
	if got := kindsOf(found); !slices.Equal(got, want) {
		t.Errorf("found %v, want %v", got, want)
	}
	noted, same := m.Ledger.Entries(), 0
	for _, e := range found {
		i := slices.IndexFunc(noted, func(o ledger.Entry) bool { return o.Kind == e.Kind && o.Name == e.Name })
		if i < 0 || (e.Kind == ledger.Process && e.PID != noted[i].PID) {
			continue // the child of the process
		}
		o := noted[i]
		same++
		o.Path, e.Path = "", "" // the kernel keeps no path of a loop device's file
		if o != e {
			t.Errorf("found %+v, noted %+v", e, o)
		}
	}
	if same < len(want) {
		t.Errorf("%d found are noted, want %d", same, len(want))
	}
	// A scope of another machine or of another data folder finds nothing.
	for name, scope := range map[string]Scope{
		"another machine":     {Data: tm.root, ID: "ffffffffffff"},
		"another data folder": {Data: t.TempDir()},
	} {
		if got, err := Find(t.Context(), scope); err != nil || len(got) > 0 {
			t.Errorf("%s: found %v, %v", name, got, err)
		}
	}
	if err := m.Ledger.Teardown(t.Context(), Remove); err != nil {
		t.Fatal(err)
	}
	// Remove is idempotent.
	if err := errors.Join(RemoveAll(t.Context(), noted), RemoveAll(t.Context(), found), os.RemoveAll(tm.dir())); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if left := leftovers(t, tm); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
