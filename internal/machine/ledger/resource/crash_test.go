package resource

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// crashVariable makes the test binary live a machine's life in a data folder:
// its value is the folder, the machine's ID, the number of the write of the
// ledger at which the process kills itself (0 for none), and whether that is
// before or after the record's copy.
const crashVariable = "BANGER_TEST_CRASH"

// live makes one of each kind and gives them back.
func live(spec string) error {
	f := strings.Split(spec, ",")
	w := openWorld(f[0], f[1])
	at, err := strconv.Atoi(f[2])
	if err != nil {
		return err
	}
	writes := 0
	write := func(section json.RawMessage) error {
		writes++
		if writes == at && f[3] == "before" {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), wait())
		}
		err := w.writeRecord(section)
		if writes == at {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), wait())
		}
		return err
	}
	if err := os.MkdirAll(w.dir(), 0o700); err != nil {
		return err
	}
	l, err := ledger.New(w.dir(), w.id, ledger.Record{Write: write})
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := makeAll(ctx, Maker{l, w.owner}, w); err != nil {
		return err
	}
	if err := errors.Join(l.Teardown(ctx, Remove), l.Clear()); err != nil {
		return err
	}
	fmt.Fprintln(os.Stdout, writes)
	return os.RemoveAll(w.dir())
}

// wait is where a process is when its own SIGKILL comes.
func wait() error { select {} }

func makeAll(ctx context.Context, m Maker, w world) error {
	disk, sock := filepath.Join(w.dir(), "disk.img"), filepath.Join(w.dir(), "run", "s.sock")
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
		if err := makeSnapshot(ctx, m, w, loop.Name()); err != nil {
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
	return m.Process(ctx, "vmm", sleeper(w))
}

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

func makeSnapshot(ctx context.Context, m Maker, w world, origin string) error {
	cow := filepath.Join(w.dir(), "cow.img")
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

func child(t *testing.T, w world, at int, when string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s,%s,%d,%s", crashVariable, w.root, w.id, at, when))
	cmd.WaitDelay = time.Second
	return cmd
}

// damages are what may have happened to the copies besides.
var damages = []struct {
	name string
	do   func(w world) error
}{
	{"both copies intact", func(world) error { return nil }},
	{"without handles.json", func(w world) error { return os.RemoveAll(filepath.Join(w.dir(), ledger.FileName)) }},
	{"with the record damaged", func(w world) error { return damage(w.record()) }},
	{"with both damaged", func(w world) error {
		return errors.Join(damage(w.record()), damage(filepath.Join(w.dir(), ledger.FileName)))
	}},
}

func damage(path string) error {
	if _, err := os.Lstat(path); err != nil {
		return nil //nolint:nilerr // what is not there is damaged enough
	}
	return os.WriteFile(path, []byte("\x00"), 0o600)
}

// recoverMachine is what a daemon does with a dead machine: by the ledger, or
// by marks where there is none.
func recoverMachine(t *testing.T, w world) (byLedger bool) {
	t.Helper()
	if _, err := os.Lstat(w.dir()); errors.Is(err, os.ErrNotExist) {
		return false
	}
	l, _, err := ledger.Open(w.dir(), w.id, w.readRecord())
	switch {
	case err == nil:
		if err := l.Teardown(t.Context(), Remove); err != nil {
			t.Fatalf("teardown: %v", err)
		}
		if err := os.RemoveAll(w.dir()); err != nil {
			t.Fatal(err)
		}
		return true
	case !errors.Is(err, ledger.ErrNoLedger):
		t.Fatal(err)
	}
	if err := errors.Join(RemoveAll(t.Context(), find(t, w)), os.RemoveAll(w.dir())); err != nil {
		t.Fatal(err)
	}
	return false
}

// countWrites lives the life through, and asserts that it leaves nothing by
// itself.
func countWrites(t *testing.T, w world) int {
	t.Helper()
	cmd := child(t, w, 0, "")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("life: %v: %s", err, &stderr)
	}
	writes, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil || writes < 17 {
		t.Fatalf("%q writes, %v: want one or more for each step", out, err)
	}
	if left := leftovers(t, w); len(left) > 0 {
		t.Fatalf("a life without a crash leaves %q", left)
	}
	return writes
}

// TestKilledAtEveryStep pins R3: at whatever write of the ledger the process
// is killed, nothing is left after recovery, by the ledger or without it.
func TestKilledAtEveryStep(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	writes := countWrites(t, w)
	most, byLedger := 0, 0
	for at := 1; at <= writes; at++ {
		for i, when := range []string{"before", "after"} {
			if testing.Short() && (at/len(damages))%2 != i {
				continue // each step once, with all damages in turn
			}
			for j, d := range damages {
				if (at+i)%len(damages) != j {
					continue // each step meets two of them, each damage half of the steps
				}
				name := fmt.Sprintf("killed %s write %d, %s", when, at, d.name)
				if err := child(t, w, at, when).Run(); err == nil {
					t.Fatalf("%s: it was not", name)
				}
				most = max(most, len(leftovers(t, w)))
				if err := d.do(w); err != nil {
					t.Fatal(err)
				}
				if recoverMachine(t, w) {
					byLedger++
				}
				if left := leftovers(t, w); len(left) > 0 {
					t.Fatalf("%s: recovery leaves %q", name, left)
				}
			}
		}
	}
	// The listing must have seen what there was to see.
	if want := 6; most < want || byLedger == 0 {
		t.Errorf("at most %d leftovers before a recovery, %d recoveries by a ledger: want %d or more, and some", most, byLedger, want)
	}
}

// TestKilledAnywhere kills the process between system calls of no choice of ours.
func TestKilledAnywhere(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	start := time.Now()
	countWrites(t, w)
	life := time.Since(start)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	runs := 16
	if testing.Short() {
		runs = 4
	}
	for n := range runs {
		cmd := child(t, w, 0, "")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(random.Int64N(int64(life)))
		timer := time.AfterFunc(after, func() { cmd.Process.Kill() })
		cmd.Wait()
		timer.Stop()
		d := damages[n%len(damages)]
		if err := d.do(w); err != nil {
			t.Fatal(err)
		}
		recoverMachine(t, w)
		if left := leftovers(t, w); len(left) > 0 {
			t.Fatalf("killed after %v, %s: recovery leaves %q", after, d.name, left)
		}
	}
}

// TestFind pins that all of a machine is found by its marks, and by whom.
func TestFind(t *testing.T) {
	needRoot(t)
	w := newWorld(t)
	m := w.maker(t)
	if err := makeAll(t.Context(), m, w); err != nil {
		t.Fatal(err)
	}
	want := []ledger.Kind{ledger.Process, ledger.Tap, ledger.Table, ledger.DM, ledger.Loop}
	if !hasMapper() {
		want = slices.DeleteFunc(want, func(k ledger.Kind) bool { return k == ledger.DM })
	}
	found := find(t, w)
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
		o.Path, e.Path = "", "" // of a loop device's file the kernel keeps the inode
		if o != e {
			t.Errorf("found %+v, noted %+v", e, o)
		}
	}
	if same < len(want) {
		t.Errorf("%d found are noted, want %d", same, len(want))
	}
	// Neither another machine's owner nor that of another data folder finds it.
	for name, scope := range map[string]Scope{
		"another machine":     {Data: w.root, ID: "ffffffffffff"},
		"another data folder": {Data: t.TempDir()},
	} {
		if got, err := Find(t.Context(), scope); err != nil || len(got) > 0 {
			t.Errorf("%s: found %v, %v", name, got, err)
		}
	}
	if err := m.Ledger.Teardown(t.Context(), Remove); err != nil {
		t.Fatal(err)
	}
	// Idempotent: all of it once more.
	if err := errors.Join(RemoveAll(t.Context(), noted), RemoveAll(t.Context(), found), os.RemoveAll(w.dir())); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if left := leftovers(t, w); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
