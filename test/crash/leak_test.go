//go:build e2e

package crash

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// strangeID is a machine that nobody has.
const strangeID = "0123456789ab"

// TestListingFindsLeaks plants one of each thing that could be left behind. A listing that does not see it could
// not tell of a leak.
func TestListingFindsLeaks(t *testing.T) {
	w := newWorld(t)
	for _, row := range []struct {
		name  string
		plant func(t *testing.T)
		want  string
	}{
		{"tap", func(t *testing.T) {
			tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "bgr" + strangeID}, Mode: netlink.TUNTAP_MODE_TAP}
			check(t, netlink.LinkAdd(tap))
			t.Cleanup(func() { check(t, netlink.LinkDel(tap)) })
		}, "link bgr" + strangeID},
		{"process", func(t *testing.T) {
			cmd := exec.Command("sleep", "1000")
			cmd.Env = []string{"BANGER_MACHINE=" + strangeID + "-01234567/vmm"}
			check(t, cmd.Start())
			t.Cleanup(func() { check(t, cmd.Process.Kill()); cmd.Wait() })
		}, "sleep 1000 (machine " + strangeID + ")"},
		{"process without a mark", func(t *testing.T) {
			cmd := exec.Command("sleep", "1001")
			check(t, cmd.Start())
			t.Cleanup(func() { check(t, cmd.Process.Kill()); cmd.Wait() })
		}, "sleep 1001"},
		{"second daemon", func(t *testing.T) {
			program := w.in("out", "banger")
			tool(t, "cp", "/bin/cat", program)
			for range 2 {
				cmd := exec.Command(program, "-", "daemon")
				stdin, err := cmd.StdinPipe()
				check(t, err)
				check(t, cmd.Start())
				t.Cleanup(func() { stdin.Close(); cmd.Wait() })
			}
		}, "daemon "},
		{"loop device", func(t *testing.T) {
			file := w.in("data", "file")
			check(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
			tool(t, "losetup", "-f", file)
			t.Cleanup(func() { check(t, detachLoops(w.in("data"))); check(t, os.Remove(file)) })
		}, "loop /dev/loop"},
		{"nftables", func(t *testing.T) {
			conn, err := nftables.New()
			check(t, err)
			table := conn.AddTable(&nftables.Table{Name: "banger_" + strangeID + "_01234567", Family: nftables.TableFamilyINet})
			check(t, conn.Flush())
			t.Cleanup(func() { conn.DelTable(table); check(t, conn.Flush()) })
		}, "table banger_" + strangeID},
		{"file", func(t *testing.T) {
			check(t, os.WriteFile(w.in("tmp", "left"), nil, 0o600))
			t.Cleanup(func() { check(t, os.Remove(w.in("tmp", "left"))) })
		}, "file tmp/left"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := w.listing(t)
			if d := compare(before, w.listing(t)); !d.empty() {
				t.Fatalf("two listings of one state differ:\n%v", d)
			}
			t.Run("planted", func(t *testing.T) {
				row.plant(t)
				var d difference
				seen := func() bool { // a process has no arguments yet in the moment of its exec
					d = compare(before, w.listing(t))
					return strings.Contains(d.String(), row.want)
				}
				if !eventually(settleLimit, seen) {
					t.Errorf("want %s left, got:\n%v", row.want, d)
				}
			})
			if d := compare(before, w.listing(t)); !d.empty() {
				t.Fatalf("what was planted is not gone:\n%v", d)
			}
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestWatcherHoldsAtStep kills a process at a step: what it would have done after that it must not have done.
func TestWatcherHoldsAtStep(t *testing.T) {
	w := newWorld(t)
	watcher := w.watch(t)
	folder := w.in("data", "banger", "machines", strangeID)
	check(t, os.MkdirAll(folder, 0o700))
	const script = `cd "$1"; echo one >.record.json.tmp-1; mv .record.json.tmp-1 record.json; echo two >.handles.json.tmp-1; echo 3 >after`
	for _, row := range []struct {
		kill       int // step, from 1; 0: none
		steps      int
		last, lack string
	}{{0, 2, "after", "none"}, {1, 1, ".record.json.tmp-1", "record.json"}, {2, 2, ".handles.json.tmp-1", "after"}} {
		var steps []step
		watcher.look(func(s step) {
			if steps = append(steps, s); len(steps) == row.kill {
				check(t, syscall.Kill(s.pid, syscall.SIGKILL))
			}
		})
		cmd := exec.Command("sh", "-c", script, "sh", folder)
		err := cmd.Run()
		watcher.look(nil)
		if (err != nil) != (row.kill > 0) {
			t.Errorf("kill at %d: %v", row.kill, err)
		}
		if len(steps) != row.steps {
			t.Errorf("kill at %d: steps %v", row.kill, steps)
		}
		if _, err := os.Stat(filepath.Join(folder, row.last)); err != nil {
			t.Errorf("kill at %d: %v", row.kill, err)
		}
		if _, err := os.Stat(filepath.Join(folder, row.lack)); err == nil {
			t.Errorf("kill at %d: it came as far as %s", row.kill, row.lack)
		}
		check(t, os.RemoveAll(folder))
		check(t, os.MkdirAll(folder, 0o700))
	}
}

// TestJudgeFindsLeaks lets leaks, and a machine that is lost, spoil lives in which nobody is killed: the judge that
// TestCrash relies on must say so.
func TestJudgeFindsLeaks(t *testing.T) {
	s := newScene(t, newWorld(t), stubImage, 1, false, "sleep", "1000")
	if faults := s.settled(t, nil); len(faults) > 0 {
		t.Fatalf("nothing is wrong: %q", faults)
	}
	if faults := s.settled(t, &promise{exists: true}); !strings.Contains(strings.Join(faults, "\n"), "the machine is lost") {
		t.Errorf("a machine that is not there is not missed: %q", faults)
	}
	t.Run("tap", func(t *testing.T) {
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "bgr" + strangeID}, Mode: netlink.TUNTAP_MODE_TAP}
		check(t, netlink.LinkAdd(tap))
		t.Cleanup(func() { check(t, netlink.LinkDel(tap)) })
		if faults := s.settled(t, nil); !strings.Contains(strings.Join(faults, "\n"), tap.Name) {
			t.Errorf("a tap is not seen: %q", faults)
		}
	})
	t.Run("record", func(t *testing.T) {
		folder := s.in("data", "banger", "machines", strangeID)
		check(t, os.MkdirAll(folder, 0o700))
		t.Cleanup(func() { check(t, os.RemoveAll(folder)) })
		check(t, os.WriteFile(filepath.Join(folder, "record.json"), []byte(`{"id":`), 0o600))
		if faults := unreadable(s.world); len(faults) != 1 {
			t.Errorf("a record that is cut off is not seen: %q", faults)
		}
	})
	t.Run("bystander", func(t *testing.T) {
		for pid, p := range s.processesOf("supervise") {
			if p.machine() == s.bystanders[0].ID {
				kill(t, pid)
			}
		}
		if faults := strings.Join(s.settled(t, nil), "\n"); !strings.Contains(faults, "lost: process") || !strings.Contains(faults, "lost: link") {
			t.Errorf("a bystander's end is not seen: %s", faults)
		}
	})
}

func TestMachineIn(t *testing.T) {
	for text, want := range map[string]string{
		"/tmp/x/TestLaneworld#011295804533/001/data":                                   "",
		"/tmp/x/TestLaneworld#011295804533/001/data/banger/machines/b5ebce390edb/disk": "b5ebce390edb",
		"b5ebce390edb 151": "b5ebce390edb", "0b5ebce390edb": "",
	} {
		if got := machineIn(text); got != want {
			t.Errorf("%s: machine %q, want %q", text, got, want)
		}
	}
}
