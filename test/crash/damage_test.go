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

// A patient is a machine that has run when its files were damaged, and one beside it that is whole.
type patient struct {
	world
	id, folder string
	other      machineState
	host       []item // when both ran
}

// newPatient kills the daemon under two machines; dead says that the patient's supervisor is killed too, so that a
// tap, a loop device and sockets are left.
func newPatient(t *testing.T, dead bool) *patient {
	t.Helper()
	w := newWorld(t)
	for _, name := range []string{subject, "other"} {
		w.must(t, "create", "--name", name, stubImage, "sleep", "1000")
		w.must(t, "start", name)
	}
	machines := w.machines(t)
	p := &patient{world: w, id: machines[subject].ID, other: machines["other"]}
	p.folder = w.in("data", "banger", "machines", p.id)
	p.host = w.listing(t)
	killDaemon(t, w)
	if dead {
		for pid, s := range w.processesOf("supervise") {
			if s.machine() == p.id {
				kill(t, pid)
			}
		}
		if left := p.held(t); left["link"] != 1 || left["loop"] != 1 {
			t.Fatalf("a killed machine has left %v: there is nothing to be found", left)
		}
	}
	return p
}

// held counts what the host has of the patient by kinds, files apart.
func (p *patient) held(t *testing.T) map[string]int {
	t.Helper()
	out := map[string]int{}
	for _, i := range p.listing(t) {
		if i.machine == p.id && i.kind != "file" {
			out[i.kind]++
		}
	}
	return out
}

// damages are the ways in which a file goes wrong. other is the same file of another machine.
func damages() []struct {
	name string
	do   func(data, other []byte) []byte // nil: the file goes
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

// damage returns what the file then holds.
func (p *patient) damage(t *testing.T, name string, do func(data, other []byte) []byte) []byte {
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

// TestR3Damage damages what banger knows of a machine that runs, and of one that was killed, starts the daemon and
// lets doctor repair.
func TestR3Damage(t *testing.T) {
	for _, files := range [][]string{{"handles.json"}, {"record.json"}, {"handles.json", "record.json"}} {
		for _, damage := range damages() {
			for _, dead := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s, killed %v", strings.Join(files, " and "), damage.name, dead), func(t *testing.T) {
					p := newPatient(t, dead)
					kept := map[string][]byte{}
					for _, name := range files {
						kept[name] = p.damage(t, name, damage.do)
					}
					said := p.run(t, "ps", "-a").stderr + p.run(t, "doctor").String() + p.run(t, "doctor", "--fix").String()
					p.expectOther(t)
					// A newer banger may have put more into its record than this one knows to give back.
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
					p.expectLife(t, dead)
				})
			}
		}
	}
}

// expectOther wants the machine beside the patient to have noticed nothing.
func (p *patient) expectOther(t *testing.T) {
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

// expectNothingHeld wants nothing of the patient on the host but files in its data folder.
func (p *patient) expectNothingHeld(t *testing.T) {
	t.Helper()
	if left := p.held(t); len(left) > 0 {
		t.Errorf("the host still has %v", left)
	}
	for _, i := range p.listing(t) {
		if i.machine == p.id && i.kind == "file" && strings.HasPrefix(i.what, "run/") {
			t.Errorf("left: %v", i)
		}
	}
}

// expectUntouched wants all that the patient had while it ran, but for its processes where it is dead.
func (p *patient) expectUntouched(t *testing.T, dead bool) {
	t.Helper()
	for _, i := range compare(p.host, p.listing(t)).lost {
		if i.machine == p.id && i.kind != "file" && (!dead || i.kind != "process") {
			t.Errorf("a machine that runs has lost %v", i)
		}
	}
}

// expectKept wants the damaged record to be told of by its file's name and to be kept.
func (p *patient) expectKept(t *testing.T, data []byte, said string) {
	t.Helper()
	if len(data) == 0 {
		return // a record that is not there, or says nothing
	}
	if !strings.Contains(said, filepath.Join(p.folder, "record.json")) {
		t.Errorf("nobody names the damaged record:\n%s", said)
	}
	paths, err := filepath.Glob(filepath.Join(p.folder, "*"))
	check(t, err)
	for _, path := range paths {
		if got, err := os.ReadFile(path); err == nil && bytes.Equal(got, data) {
			return
		}
	}
	t.Errorf("the damaged record was deleted; there is %q", paths)
}

// expectLife wants the patient to be what it was, to start where it was killed, and to go without a trace.
func (p *patient) expectLife(t *testing.T, dead bool) {
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

// alter changes entries of the patient's ledger, in both copies.
func (p *patient) alter(t *testing.T, change func(e *ledger.Entry)) {
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

// TestR3NotOurs gives a killed machine's names and numbers to others, who must not be touched.
func TestR3NotOurs(t *testing.T) {
	t.Run("process", func(t *testing.T) {
		p := newPatient(t, true)
		stranger := exec.Command("sleep", "1000")
		check(t, stranger.Start())
		t.Cleanup(func() { check(t, stranger.Process.Kill()); stranger.Wait() })
		changed := 0
		p.alter(t, func(e *ledger.Entry) {
			if e.Kind == ledger.Process {
				e.PID = stranger.Process.Pid
				changed++
			}
		})
		if changed == 0 {
			t.Fatal("the ledger lists no process")
		}
		p.run(t, "ps", "-a")
		p.run(t, "doctor", "--fix")
		if _, ok := readProcess(stranger.Process.Pid); !ok {
			t.Error("a stranger was killed for his number")
		}
		p.expectNothingHeld(t)
		p.expectLife(t, true)
	})
	t.Run("tap", func(t *testing.T) {
		p := newPatient(t, true)
		name := "bgr" + p.id
		link, err := netlink.LinkByName(name)
		check(t, err)
		check(t, netlink.LinkDel(link))
		stranger := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP}
		check(t, netlink.LinkAdd(stranger))
		t.Cleanup(func() { check(t, netlink.LinkDel(stranger)) })
		p.run(t, "ps", "-a")
		p.run(t, "doctor", "--fix")
		if left := p.held(t); left["link"] != 1 {
			t.Error("a stranger's tap was removed for its name")
		}
		if left := p.held(t); left["loop"] != 0 {
			t.Errorf("the host still has %v", left)
		}
		if got := p.run(t, "start", subject); got.code == 0 || !strings.Contains(got.stderr, name) {
			t.Errorf("the name is taken, and nobody says so: %v", got)
		}
	})
}
