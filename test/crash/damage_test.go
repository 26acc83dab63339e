//go:build e2e

package crash

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/banger-vm/banger/internal/machine/ledger"
)

// A damagedMachine is a sandbox with two machines: the files of one are damaged, and the other is intact.
type damagedMachine struct {
	sandbox
	id, folder string
	other      machineState
	host       []item // while both run
}

// newDamagedMachine starts two machines and kills the daemon. If dead is set, it also kills the supervisor of the first
// machine, which leaves a tap, a loop device and sockets behind.
func newDamagedMachine(t *testing.T, dead bool) *damagedMachine {
	t.Helper()
	box := newSandbox(t)
	for _, name := range []string{subject, "other"} {
		box.must(t, "create", "--name", name, stubImage, "sleep", "1000")
		box.must(t, "start", name)
	}
	machines := box.machines(t)
	p := &damagedMachine{sandbox: box, id: machines[subject].ID, other: machines["other"]}
	p.folder = box.in("data", "banger", "machines", p.id)
	p.host = box.listing(t)
	killDaemon(t, box)
	if dead {
		for pid, s := range box.processesOf("supervise") {
			if s.machine() == p.id {
				kill(t, pid)
			}
		}
		if left := p.heldByKind(t); left["link"] != 1 || left["loop"] != 1 {
			t.Fatalf("a killed machine has left %v: the test cannot fail", left)
		}
	}
	return p
}

// heldByKind counts the items of the damaged machine on the host by kind, without its files.
func (p *damagedMachine) heldByKind(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, i := range p.listing(t) {
		if i.machine == p.id && i.kind != "file" {
			out[i.kind]++
		}
	}
	return out
}

// damages returns the kinds of damage to a file. other is the same file of another machine.
func damages() []struct {
	name string
	do   func(data, other []byte) []byte // nil: the file is removed
} {
	schema := regexp.MustCompile(`"schema": *[0-9]+`)
	return []struct {
		name string
		do   func(data, other []byte) []byte
	}{
		{"missing", func([]byte, []byte) []byte { return nil }},
		{"empty", func([]byte, []byte) []byte { return []byte{} }},
		{"truncated", func(data, _ []byte) []byte { return data[:len(data)/2] }},
		{"garbage", func(data, _ []byte) []byte { return bytes.Repeat([]byte{0x00, 0xff, '{', '"'}, len(data)/4) }},
		{"of another machine", func(_, other []byte) []byte { return other }},
		{newerSchema, func(data, _ []byte) []byte { return schema.ReplaceAll(data, []byte(`"schema":999`)) }},
	}
}

const newerSchema = "of a newer schema"

// damage damages a file and returns its new content.
func (p *damagedMachine) damage(t *testing.T, name string, do func(data, other []byte) []byte) []byte {
	t.Helper()
	path := filepath.Join(p.folder, name)
	data, err := os.ReadFile(path)
	check(t, err)
	other, err := os.ReadFile(p.in("data", "banger", "machines", p.other.ID, name))
	check(t, err)
	after := do(data, other)
	if bytes.Equal(after, data) {
		t.Fatalf("%s is not damaged", path)
	}
	if after == nil {
		check(t, os.Remove(path))
	} else {
		check(t, os.WriteFile(path, after, 0o600))
	}
	return after
}

// TestR3Damage damages the record and the ledger of a machine that runs, and of one that was killed. Then it starts the
// daemon and runs doctor --fix.
func TestR3Damage(t *testing.T) {
	for _, files := range [][]string{{"handles.json"}, {"record.json"}, {"handles.json", "record.json"}} {
		for _, damage := range damages() {
			for _, dead := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s, killed %v", strings.Join(files, " and "), damage.name, dead), func(t *testing.T) {
					p := newDamagedMachine(t, dead)
					kept := map[string][]byte{}
					for _, name := range files {
						kept[name] = p.damage(t, name, damage.do)
					}
					said := p.run(t, "ps", "-a").stderr + p.run(t, "doctor").String() + p.run(t, "doctor", "--fix").String()
					p.expectOther(t)
					// This version does not release the resources of a record of a newer version, which may have more.
					left := files[len(files)-1] == "record.json" && damage.name == newerSchema
					if dead && !left {
						p.expectNothingHeld(t)
					} else {
						p.expectUntouched(t, dead)
					}
					if data, ok := kept["record.json"]; ok {
						p.expectKept(t, data, said)
						return
					}
					p.expectUsable(t, dead)
				})
			}
		}
	}
}

// expectOther checks that the intact machine has lost nothing and answers.
func (p *damagedMachine) expectOther(t *testing.T) {
	t.Helper()
	now := p.listing(t)
	for _, i := range compare(p.host, now).lost {
		if i.machine == p.other.ID {
			t.Errorf("the other machine has lost %v", i)
		}
	}
	if got := p.run(t, "exec", "other", "true"); got.code != 0 {
		t.Errorf("the other machine does not answer: %v", got)
	}
}

// expectNothingHeld checks that the host has nothing of the damaged machine except files in its data folder.
func (p *damagedMachine) expectNothingHeld(t *testing.T) {
	t.Helper()
	if left := p.heldByKind(t); len(left) > 0 {
		t.Errorf("the host still has %v", left)
	}
	for _, i := range p.listing(t) {
		if i.machine == p.id && i.kind == "file" && strings.HasPrefix(i.what, "run/") {
			t.Errorf("left: %v", i)
		}
	}
}

// expectUntouched checks that the host has all items of the damaged machine, without its processes if it is dead.
func (p *damagedMachine) expectUntouched(t *testing.T, dead bool) {
	t.Helper()
	for _, i := range compare(p.host, p.listing(t)).lost {
		if i.machine == p.id && i.kind != "file" && (!dead || i.kind != "process") {
			t.Errorf("a machine that runs has lost %v", i)
		}
	}
}

// expectKept checks that the output names the file of the damaged record, and that its content still exists.
func (p *damagedMachine) expectKept(t *testing.T, data []byte, said string) {
	t.Helper()
	if len(data) == 0 {
		return // the record was removed or emptied
	}
	if !strings.Contains(said, filepath.Join(p.folder, "record.json")) {
		t.Errorf("the output does not name the damaged record:\n%s", said)
	}
	paths, err := filepath.Glob(filepath.Join(p.folder, "*"))
	check(t, err)
	for _, path := range paths {
		if got, err := os.ReadFile(path); err == nil && bytes.Equal(got, data) {
			return
		}
	}
	t.Errorf("the damaged record was deleted; the folder has %q", paths)
}

// expectUsable checks that the damaged machine has its state and ID, answers, can be started if it is dead, and can be
// removed without leftovers.
func (p *damagedMachine) expectUsable(t *testing.T, dead bool) {
	t.Helper()
	state := map[bool]string{false: "running", true: "exited"}[dead]
	if m := p.machines(t)[subject]; m.State != state || m.ID != p.id {
		t.Errorf("the machine is %+v, want it %s", m, state)
	}
	if dead {
		p.must(t, "start", subject)
	}
	p.must(t, "exec", subject, "true")
	p.must(t, "rm", "-f", subject)
	for _, i := range p.listing(t) {
		if i.machine == p.id {
			t.Errorf("left after rm: %v", i)
		}
	}
}

// editLedger changes the entries of the damaged machine's ledger, in both copies.
func (p *damagedMachine) editLedger(t *testing.T, change func(e *ledger.Entry)) {
	t.Helper()
	path := filepath.Join(p.folder, "record.json")
	data, err := os.ReadFile(path)
	check(t, err)
	var record map[string]json.RawMessage
	check(t, json.Unmarshal(data, &record))
	const section = "runtime"
	l, damaged, err := ledger.Open(p.folder, p.id, ledger.Record{Section: record[section], Write: func(text json.RawMessage) error {
		record[section] = text
		data, err := json.Marshal(record)
		return errors.Join(err, os.WriteFile(path, data, 0o600))
	}})
	if err != nil || len(damaged) > 0 {
		t.Fatal(err, damaged)
	}
	for _, e := range l.Entries() {
		change(&e)
		check(t, l.Identify(e))
	}
}

// TestR3NotOurs gives the process numbers and the tap name of a killed machine to foreign resources, which banger must
// leave alone.
func TestR3NotOurs(t *testing.T) {
	t.Run("process", func(t *testing.T) {
		p := newDamagedMachine(t, true)
		foreign := exec.Command("sleep", "1000")
		check(t, foreign.Start())
		t.Cleanup(func() { check(t, foreign.Process.Kill()); foreign.Wait() })
		changed := 0
		p.editLedger(t, func(e *ledger.Entry) {
			if e.Kind == ledger.Process {
				e.PID = foreign.Process.Pid
				changed++
			}
		})
		if changed == 0 {
			t.Fatal("the ledger lists no process")
		}
		p.run(t, "ps", "-a")
		p.run(t, "doctor", "--fix")
		if _, ok := readProcess(foreign.Process.Pid); !ok {
			t.Error("a foreign process with a number of the ledger was killed")
		}
		p.expectNothingHeld(t)
		p.expectUsable(t, true)
	})
	t.Run("tap", func(t *testing.T) {
		p := newDamagedMachine(t, true)
		name := "bgr" + p.id
		link, err := netlink.LinkByName(name)
		check(t, err)
		check(t, netlink.LinkDel(link))
		foreign := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		check(t, netlink.LinkAdd(foreign))
		t.Cleanup(func() { check(t, netlink.LinkDel(foreign)) })
		p.run(t, "ps", "-a")
		p.run(t, "doctor", "--fix")
		if left := p.heldByKind(t); left["link"] != 1 {
			t.Error("a foreign tap with a name of the ledger was removed")
		}
		if left := p.heldByKind(t); left["loop"] != 0 {
			t.Errorf("the host still has %v", left)
		}
		if got := p.run(t, "start", subject); got.code == 0 || !strings.Contains(got.stderr, name) {
			t.Errorf("the error does not name the tap that exists already: %v", got)
		}
	})
}
