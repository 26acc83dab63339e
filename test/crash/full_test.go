//go:build e2e

package crash

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A ballast is a file that takes all free space of a file system.
type ballast struct {
	file *os.File
	size int64
}

// smallSandbox returns a sandbox on a file system of its own, with little more space than banger requires to be free.
func smallSandbox(t *testing.T) (sandbox, *ballast) {
	t.Helper()
	full := newSandbox(t)
	image := full.in("out", "small.ext4")
	const room = 320 // MiB
	used, _, _ := strings.Cut(tool(t, "du", "-sm", full.dir), "\t")
	size, err := strconv.Atoi(used)
	check(t, err)
	tool(t, "truncate", "-s", strconv.Itoa(size+size/16+room)+"M", image)
	tool(t, "mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image)
	point := full.in("out", "small")
	check(t, os.MkdirAll(point, 0o755))
	tool(t, "mount", "-o", "loop", image, point)
	t.Cleanup(func() {
		makeSandbox(t, point).killAll()
		if err := errors.Join(detachLoops(point), unix.Unmount(point, unix.MNT_DETACH)); err != nil {
			t.Error(err)
		}
	})
	tool(t, "cp", "-a", "--sparse=always", full.in("data"), full.in("cache"), point)
	box := makeSandbox(t, point)
	f, err := os.Create(box.in("out", "ballast"))
	check(t, err)
	t.Cleanup(func() { f.Close() })
	return box, &ballast{file: f}
}

// fill grows the file until no block is free.
func (b *ballast) fill(t *testing.T) {
	t.Helper()
	for part := int64(1 << 30); part >= 4096; {
		err := unix.Fallocate(int(b.file.Fd()), 0, b.size, part)
		switch {
		case err == nil:
			b.size += part
		case errors.Is(err, unix.ENOSPC):
			part /= 2
		default:
			t.Error(err)
			return
		}
	}
}

func (b *ballast) free(t *testing.T) {
	t.Helper()
	b.size = 0
	check(t, b.file.Truncate(0))
}

// expectFull checks that the command failed with one line that names the cause.
func expectFull(t *testing.T, got outcome) {
	t.Helper()
	if got.code == 0 || got.hung || strings.Count(got.stderr, "banger: ") != 1 || !strings.Contains(got.stderr, "space") {
		t.Errorf("no clear error: %v", got)
	}
}

// TestFullDiskDuringCreate fills the disk before and during the creation of a machine.
func TestFullDiskDuringCreate(t *testing.T) {
	box, ballast := smallSandbox(t)
	watcher := box.watch(t)
	args := func(name string) []string { return []string{"create", "--name", name, stubImage, "sleep", "1000"} }
	box.must(t, args("first")...)
	before := box.listing(t)
	steps := 0
	watcher.onStep(func(step) { steps++ })
	box.must(t, args("measure")...)
	watcher.onStep(nil)
	box.must(t, "rm", "measure")
	for at := 0; at <= steps; at += max(1, steps/6) {
		n := 0
		if at == 0 {
			ballast.fill(t)
		}
		watcher.onStep(func(step) {
			if n++; n == at {
				ballast.fill(t)
			}
		})
		got := box.run(t, args("second")...)
		watcher.onStep(nil)
		if got.code == 0 { // the last steps need no space
			ballast.free(t)
			box.must(t, "rm", "second")
			continue
		}
		expectFull(t, got)
		if d := compare(before, box.listing(t)); !d.empty() {
			t.Errorf("full at step %d: a create that failed has left:\n%v", at, d)
		}
		if got := box.machines(t); len(got) != 1 || got["first"].State != "created" {
			t.Errorf("full at step %d: machines: %v", at, got)
		}
		ballast.free(t)
	}
	box.must(t, args("second")...)
	box.must(t, "start", "second")
	box.must(t, "exec", "second", "true")
}

func TestFullDiskDuringStartAndStop(t *testing.T) {
	box, ballast := smallSandbox(t)
	box.must(t, "create", "--name", "idle", stubImage, "sleep", "1000")
	box.must(t, "create", "--name", "busy", stubImage, "sleep", "1000")
	box.must(t, "start", "busy") // the first start fills the cache
	box.must(t, "stop", "--timeout", "5", "busy")
	before := box.listing(t)
	box.must(t, "start", "busy")
	ballast.fill(t)
	expectFull(t, box.run(t, "start", "idle"))
	if got := box.machines(t); got["idle"].State != "created" && got["idle"].State != "exited" {
		t.Errorf("a machine that could not be started: %+v", got["idle"])
	}
	box.must(t, "exec", "busy", "true")
	ballast.fill(t) // the failed start has freed space
	box.must(t, "stop", "--timeout", "5", "busy")
	if got := box.machines(t)["busy"]; got.State != "exited" || got.ExitCode != 128+int(unix.SIGTERM) {
		t.Errorf("the exit of a machine on a full disk is not recorded: %+v", got)
	}
	ballast.free(t)
	var got map[string]machineState
	if !eventually(recoveryLimit, func() bool { // its supervisor may be about to end
		box.run(t, "doctor", "--fix")
		got = box.machines(t)
		return len(got) == 2 && got["busy"].State == "exited"
	}) {
		t.Errorf("machines: %v", got)
	}
	d := compare(before, box.listing(t))
	d.left = without(d.left, "console.log", "command.log", "supervisor.log", "device.raw")
	if !d.empty() {
		t.Errorf("the host differs from before:\n%v", d)
	}
	for _, name := range []string{"idle", "busy"} {
		box.must(t, "start", name)
		box.must(t, "exec", name, "true")
	}
}

// without drops the items that end in one of the names.
func without(items []item, names ...string) []item {
	var out []item
	for _, i := range items {
		keep := true
		for _, name := range names {
			keep = keep && !strings.HasSuffix(i.what, name)
		}
		if keep {
			out = append(out, i)
		}
	}
	return out
}

func TestFullDiskDuringLogGrowth(t *testing.T) {
	box, ballast := smallSandbox(t)
	box.must(t, "create", "--name", "chatty", stubImage, "sh", "-c", "while :; do echo a line of some length for the log; sleep 0.001; done")
	box.must(t, "start", "chatty")
	ballast.fill(t)
	for range 5 {
		box.must(t, "exec", "chatty", "sleep", "0.1")
	}
	if m := box.machines(t)["chatty"]; m.State != "running" {
		t.Errorf("a full log has ended the machine: %+v", m)
	}
	ballast.free(t)
	box.must(t, "stop", "--timeout", "5", "chatty")
	box.must(t, "start", "chatty")
	box.must(t, "rm", "-f", "chatty")
	if got := box.machines(t); len(got) != 0 {
		t.Errorf("machines: %v", got)
	}
}
