//go:build e2e

package crash

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// An item is a thing on the host that banger could leave behind.
type item struct {
	kind    string // process, daemon, link, loop, dm, table, netns, listener, mount, file
	what    string // identifies it, also among its successors of the same name
	machine string // ID of the machine that it belongs to, or ""
	note    string // details that do not identify it
}

// in reports whether the item is in list, with any note.
func (i item) in(list []item) bool {
	return slices.ContainsFunc(list, func(o item) bool { return o.kind == i.kind && o.what == i.what && o.machine == i.machine })
}

func (i item) String() string {
	text := strings.TrimSpace(i.kind + " " + i.what + " " + i.note)
	if i.machine != "" {
		text += " (machine " + i.machine + ")"
	}
	return text
}

// listing returns the items on the host of a sandbox. It reads the kernel's lists and none of banger's.
func (box sandbox) listing(t *testing.T) []item {
	t.Helper()
	var out []item
	for _, list := range []func(sandbox) ([]item, error){
		processItems, links, loops, dmDevices, tables, namespaces, listeners, mounts, files,
	} {
		items, err := list(box)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, items...)
	}
	return out
}

// A process is a process of the test's PID namespace.
type process struct {
	pid, parent int
	start       string
	name        string
	args        []string
	env         []string
}

// processes returns the processes of this PID namespace without its process 1 and this process.
func processes() []process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil || len(dirs) == 0 {
		panic("no /proc")
	}
	var out []process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		if p, ok := readProcess(pid); ok {
			out = append(out, p)
		}
	}
	return out
}

// readProcess reads the files of a process, see proc(5). ok is false if the process has ended.
func readProcess(pid int) (p process, ok bool) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if err != nil || open < 0 || end < 0 {
		return p, false
	}
	fields := strings.Fields(string(stat[end+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return p, false
	}
	p = process{pid: pid, start: fields[19], name: string(stat[open+1 : end])}
	p.parent, _ = strconv.Atoi(fields[1])
	args, argsErr := os.ReadFile(filepath.Join(dir, "cmdline"))
	env, envErr := os.ReadFile(filepath.Join(dir, "environ"))
	p.args, p.env = split0(args), split0(env)
	return p, argsErr == nil && envErr == nil
}

func split0(b []byte) []string { return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00") }

// inSandbox reports whether the process names the folder dir in its arguments or environment, or has the mark of a
// machine in its environment.
func (p process) inSandbox(dir string) bool {
	has := func(s string) bool { return strings.Contains(s, dir) || strings.HasPrefix(s, "BANGER_MACHINE=") }
	return slices.ContainsFunc(p.env, has) || slices.ContainsFunc(p.args, has)
}

// is reports whether the process runs the given command of banger.
func (p process) is(command string) bool {
	return p.name == "banger" && slices.Contains(p.args[1:], command)
}

var machineForm = regexp.MustCompile(`(?:^|[^0-9a-f])([0-9a-f]{12})(?:[^0-9a-f]|$)`)

// testFolder matches the part of a path that comes from t.TempDir. Its digits may look like an ID.
var testFolder = regexp.MustCompile(`/Test[^/]*/`)

// machineIn returns the ID of the machine in s, or "".
func machineIn(s string) string {
	if found := machineForm.FindStringSubmatch(testFolder.ReplaceAllString(s, "//")); found != nil {
		return found[1]
	}
	return ""
}

// machine returns the ID of the machine in the mark or in the arguments of the process, or "".
func (p process) machine() string {
	for _, v := range p.env {
		if mark, ok := strings.CutPrefix(v, "BANGER_MACHINE="); ok {
			return machineIn(mark)
		}
	}
	return machineIn(strings.Join(p.args, " "))
}

func processItems(box sandbox) ([]item, error) {
	all := processes()
	var out []item
	for _, p := range all {
		i := item{kind: "process", what: fmt.Sprintf("%d@%s", p.pid, p.start), machine: machineOf(p, all)}
		if p.is("daemon") && p.inSandbox(box.dir) {
			i.kind = "daemon"
		}
		i.note = fmt.Sprintf("%.200s", strings.Join(p.args, " ")) // no identity: an exec changes it
		out = append(out, i)
	}
	return out, nil
}

// machineOf returns the ID of the machine of p, or of its nearest ancestor that has one.
func machineOf(p process, all []process) string {
	for range all {
		if id := p.machine(); id != "" {
			return id
		}
		at := slices.IndexFunc(all, func(o process) bool { return o.pid == p.parent })
		if at < 0 {
			break
		}
		p = all[at]
	}
	return ""
}

func links(sandbox) ([]item, error) {
	all, err := net.Interfaces()
	var out []item
	for _, i := range all {
		if i.Name != "lo" {
			out = append(out, item{kind: "link", what: fmt.Sprintf("%s %d", i.Name, i.Index), machine: machineIn(strings.TrimPrefix(i.Name, "bgr"))})
		}
	}
	return out, err
}

func loops(box sandbox) ([]item, error) {
	var out []item
	err := eachLoop(box.dir, func(device, file string) error {
		out = append(out, item{kind: "loop", what: device + " " + file, machine: machineIn(file)})
		return nil
	})
	return out, err
}

// eachLoop calls do for each loop device over a file in dir.
func eachLoop(dir string, do func(device, file string) error) error {
	return everyLoop(func(device, file string) error {
		if !strings.HasPrefix(file, dir+"/") {
			return nil
		}
		return do(device, file)
	})
}

// everyLoop calls do for each loop device of the host.
func everyLoop(do func(device, file string) error) error {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	errs := []error{err}
	for _, name := range names {
		if file, err := os.ReadFile(name); err == nil { // it may be detached meanwhile
			errs = append(errs, do("/dev/"+strings.Split(name, "/")[3], strings.TrimSpace(string(file))))
		}
	}
	return errors.Join(errs...)
}

// detachLoops frees the loop devices over files in dir.
func detachLoops(dir string) error {
	return eachLoop(dir, func(device, _ string) error { return detach(device) })
}

// detachOrphans frees the loop devices of test/crashbanger whose files are deleted. If a mount of a sandbox has ended
// without cleanup, the kernel reports only a part of such a file's path.
func detachOrphans() error {
	orphan := regexp.MustCompile(`/machines/[0-9a-f]{12}/device\.raw \(deleted\)$`)
	return everyLoop(func(device, file string) error {
		if !orphan.MatchString(file) {
			return nil
		}
		return detach(device)
	})
}

func detach(device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.IoctlSetInt(int(f.Fd()), unix.LOOP_CLR_FD, 0); err != nil && !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("detach %s: %w", device, err)
	}
	return nil
}

func dmDevices(sandbox) ([]item, error) {
	names, err := filepath.Glob("/sys/block/dm-*/dm/name")
	var out []item
	for _, path := range names {
		if name, err := os.ReadFile(path); err == nil {
			out = append(out, item{kind: "dm", what: strings.TrimSpace(string(name)), machine: machineIn(string(name))})
		}
	}
	return out, err
}

func tables(sandbox) ([]item, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	all, err := conn.ListTables()
	var out []item
	for _, table := range all {
		out = append(out, item{kind: "table", what: fmt.Sprintf("%s of family %d", table.Name, table.Family), machine: machineIn(strings.ReplaceAll(table.Name, "_", "-"))})
	}
	return out, err
}

func namespaces(sandbox) ([]item, error) {
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	var out []item
	for _, e := range entries {
		out = append(out, item{kind: "netns", what: e.Name(), machine: machineIn(e.Name())})
	}
	return out, err
}

// listeners returns the TCP sockets that wait for connections. Unix sockets are among the files.
func listeners(sandbox) ([]item, error) {
	const listening = "0A" // TCP_LISTEN of linux/tcp_states.h
	var out []item
	for _, name := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile("/proc/net/" + name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			if fields := strings.Fields(line); len(fields) > 3 && fields[3] == listening {
				out = append(out, item{kind: "listener", what: name + " " + fields[1]})
			}
		}
	}
	return out, nil
}

func mounts(box sandbox) ([]item, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []item
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		const point = 4 // the fifth field of proc(5)
		if fields := strings.Fields(lines.Text()); len(fields) > point && strings.HasPrefix(fields[point], box.dir) {
			out = append(out, item{kind: "mount", what: fields[point], machine: machineIn(fields[point])})
		}
	}
	return out, lines.Err()
}

// daemonFile matches the files that the daemon creates and removes.
var daemonFile = regexp.MustCompile(`^run/banger/[0-9a-f]{8}/daemon\.[^/]*$`)

func files(box sandbox) ([]item, error) {
	var out []item
	for _, sub := range folders() {
		err := filepath.WalkDir(box.in(sub), func(path string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil // removed meanwhile
			}
			name := strings.TrimPrefix(path, box.dir+"/")
			if err == nil && !daemonFile.MatchString(name) {
				out = append(out, item{kind: "file", what: name, machine: machineIn(name)})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// A difference has the items that only one of two listings has.
type difference struct{ lost, left []item }

// compare compares two listings. A daemon may come and go, but there must not be more than one.
func compare(before, after []item) difference {
	var d difference
	daemons := 0
	for _, i := range before {
		if i.kind != "daemon" && !i.in(after) {
			d.lost = append(d.lost, i)
		}
	}
	for _, i := range after {
		switch {
		case i.kind == "daemon":
			if daemons++; daemons > 1 {
				d.left = append(d.left, i)
			}
		case !i.in(before):
			d.left = append(d.left, i)
		}
	}
	return d
}

func (d difference) empty() bool { return len(d.lost)+len(d.left) == 0 }

func (d difference) String() string {
	var b strings.Builder
	for _, i := range d.lost {
		fmt.Fprintf(&b, "  lost: %v\n", i)
	}
	for _, i := range d.left {
		fmt.Fprintf(&b, "  left: %v\n", i)
	}
	return b.String()
}
