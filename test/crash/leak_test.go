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

// unknownID is the ID of a machine that does not exist.
const unknownID = "0123456789ab"

// TestListingFindsLeaks creates one of each thing that banger could leave behind, and checks that a listing has it.
func TestListingFindsLeaks(t *testing.T) {
	box := newSandbox(t)
	for _, row := range []struct {
		name  string
		plant func(t *testing.T)
		want  string
	}{
		{"tap", func(t *testing.T) {
			tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "bgr" + unknownID}, Mode: netlink.TUNTAP_MODE_TAP}
			check(t, netlink.LinkAdd(tap))
			t.Cleanup(func() { check(t, netlink.LinkDel(tap)) })
		}, "link bgr" + unknownID},
		{"process", func(t *testing.T) {
			cmd := exec.Command("sleep", "1000")
			cmd.Env = []string{"BANGER_MACHINE=" + unknownID + "-01234567/vmm"}
			check(t, cmd.Start())
			t.Cleanup(func() { check(t, cmd.Process.Kill()); cmd.Wait() })
		}, "sleep 1000 (machine " + unknownID + ")"},
		{"process without a mark", func(t *testing.T) {
			cmd := exec.Command("sleep", "1001")
			check(t, cmd.Start())
			t.Cleanup(func() { check(t, cmd.Process.Kill()); cmd.Wait() })
		}, "sleep 1001"},
		{"second daemon", func(t *testing.T) {
			program := box.in("out", "banger")
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
			file := box.in("data", "file")
			check(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
			tool(t, "losetup", "-f", file)
			t.Cleanup(func() { check(t, detachLoops(box.in("data"))); check(t, os.Remove(file)) })
		}, "loop /dev/loop"},
		{"nftables", func(t *testing.T) {
			conn, err := nftables.New()
			check(t, err)
			table := conn.AddTable(&nftables.Table{Name: "banger_" + unknownID + "_01234567", Family: nftables.TableFamilyINet})
			check(t, conn.Flush())
			t.Cleanup(func() { conn.DelTable(table); check(t, conn.Flush()) })
		}, "table banger_" + unknownID},
		{"file", func(t *testing.T) {
			check(t, os.WriteFile(box.in("tmp", "left"), nil, 0o600))
			t.Cleanup(func() { check(t, os.Remove(box.in("tmp", "left"))) })
		}, "file tmp/left"},
	} {
		t.Run(row.name, func(t *testing.T) {
			before := box.listing(t)
			if d := compare(before, box.listing(t)); !d.empty() {
				t.Fatalf("two listings of one state differ:\n%v", d)
			}
			t.Run("planted", func(t *testing.T) {
				row.plant(t)
				var d difference
				seen := func() bool { // a process has no arguments during its exec
					d = compare(before, box.listing(t))
					return strings.Contains(d.String(), row.want)
				}
				if !eventually(recoveryLimit, seen) {
					t.Errorf("want %s left, got:\n%v", row.want, d)
				}
			})
			if d := compare(before, box.listing(t)); !d.empty() {
				t.Fatalf("the listing still differs after the cleanup:\n%v", d)
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

// TestWatcherHoldsAtStep kills a process at a step, and checks that it has done nothing after that step.
func TestWatcherHoldsAtStep(t *testing.T) {
	box := newSandbox(t)
	watcher := box.watch(t)
	folder := box.in("data", "banger", "machines", unknownID)
	check(t, os.MkdirAll(folder, 0o700))
	const script = `cd "$1"; echo one >.record.json.tmp-1; mv .record.json.tmp-1 record.json; echo two >.handles.json.tmp-1; echo 3 >after`
	for _, row := range []struct {
		kill       int // step, from 1; 0: none
		steps      int
		last, lack string
	}{{0, 2, "after", "none"}, {1, 1, ".record.json.tmp-1", "record.json"}, {2, 2, ".handles.json.tmp-1", "after"}} {
		var steps []step
		watcher.onStep(func(s step) {
			if steps = append(steps, s); len(steps) == row.kill {
				check(t, syscall.Kill(s.pid, syscall.SIGKILL))
			}
		})
		cmd := exec.Command("sh", "-c", script, "sh", folder)
		err := cmd.Run()
		watcher.onStep(nil)
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

// TestChecksFindFaults creates leaks and loses a machine, and checks that the checks of TestCrash report each of them.
func TestChecksFindFaults(t *testing.T) {
	s := newScenario(t, newSandbox(t), stubImage, 1, false, "sleep", "1000")
	if faults := s.faults(t, nil); len(faults) > 0 {
		t.Fatalf("faults without a cause: %q", faults)
	}
	if faults := s.faults(t, &expectation{exists: true}); !strings.Contains(strings.Join(faults, "\n"), "the machine is lost") {
		t.Errorf("a missing machine is not reported: %q", faults)
	}
	t.Run("tap", func(t *testing.T) {
		tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "bgr" + unknownID}, Mode: netlink.TUNTAP_MODE_TAP}
		check(t, netlink.LinkAdd(tap))
		t.Cleanup(func() { check(t, netlink.LinkDel(tap)) })
		if faults := s.faults(t, nil); !strings.Contains(strings.Join(faults, "\n"), tap.Name) {
			t.Errorf("a tap is not reported: %q", faults)
		}
	})
	t.Run("record", func(t *testing.T) {
		folder := s.in("data", "banger", "machines", unknownID)
		check(t, os.MkdirAll(folder, 0o700))
		t.Cleanup(func() { check(t, os.RemoveAll(folder)) })
		check(t, os.WriteFile(filepath.Join(folder, "record.json"), []byte(`{"id":`), 0o600))
		if faults := recordFaults(s.sandbox); len(faults) != 1 {
			t.Errorf("a truncated record is not reported: %q", faults)
		}
	})
	t.Run("bystander", func(t *testing.T) {
		for pid, p := range s.processesOf("supervise") {
			if p.machine() == s.bystanders[0].ID {
				kill(t, pid)
			}
		}
		if faults := strings.Join(s.faults(t, nil), "\n"); !strings.Contains(faults, "lost: process") || !strings.Contains(faults, "lost: link") {
			t.Errorf("the end of a bystander is not reported: %s", faults)
		}
	})
}

func TestMachineIn(t *testing.T) {
	for text, want := range map[string]string{
		"/tmp/x/TestWorkersandbox#011295804533/001/data":                                   "",
		"/tmp/x/TestWorkersandbox#011295804533/001/data/banger/machines/b5ebce390edb/disk": "b5ebce390edb",
		"b5ebce390edb 151": "b5ebce390edb", "0b5ebce390edb": "",
	} {
		if got := machineIn(text); got != want {
			t.Errorf("%s: machine %q, want %q", text, got, want)
		}
	}
}
