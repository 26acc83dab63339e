package qemu_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/confine"
)

// envReach is the variable with the things that a fake tries to reach.
const envReach = "BANGER_TEST_REACH"

// reach are things on the host that a process of the user can reach.
type reach struct {
	Socket, Disk, Home string // Disk is another machine's
	PID                int
}

// attempts are the ways to the host that a taken-over QEMU might try.
func (r reach) attempts() []attempt {
	open := func(path string, flags int) func() error {
		return func() error {
			f, err := os.OpenFile(path, flags, 0o600)
			if err == nil {
				f.Close()
			}
			return err
		}
	}
	return []attempt{
		{"connect to the daemon's socket", func() error {
			conn, err := net.DialTimeout("unix", r.Socket, time.Second)
			if err == nil {
				conn.Close()
			}
			return err
		}},
		{"send a datagram", func() error { _, err := net.ListenPacket("unixgram", ""); return err }},
		{"read another machine's disk", open(r.Disk, os.O_RDONLY)},
		{"write another machine's disk", open(r.Disk, os.O_WRONLY)},
		{"truncate another machine's disk", open(r.Disk, os.O_WRONLY|os.O_TRUNC)},
		{"list the home folder", func() error { _, err := os.ReadDir(r.Home); return err }},
		{"read a file in the home folder", open(filepath.Join(r.Home, "key"), os.O_RDONLY)},
		{"make a file in the home folder", open(filepath.Join(r.Home, fmt.Sprint("new", os.Getpid())), os.O_WRONLY|os.O_CREATE)},
		{"rename a file in the home folder", func() error {
			return os.Rename(filepath.Join(r.Home, "key"), filepath.Join(r.Home, "key"))
		}},
		{"read /etc/passwd", open("/etc/passwd", os.O_RDONLY)},
		{"run a shell of the home folder", func() error { return exec.Command(filepath.Join(r.Home, "run")).Run() }},
	}
}

type attempt struct {
	name string
	do   func() error
}

// reportReach prints the result of each attempt, as "name: error", and the
// results of those that must succeed.
func reportReach() int {
	var r reach
	if err := json.Unmarshal([]byte(os.Getenv(envReach)), &r); err != nil {
		return fail(err)
	}
	for _, a := range r.attempts() {
		fmt.Fprintf(os.Stderr, "%s: %v\n", a.name, a.do())
	}
	fmt.Fprintf(os.Stderr, "signal the owner: %v\n", syscall.Kill(r.PID, 0))
	_, err := os.ReadFile("/proc/self/fd/3")
	fmt.Fprintf(os.Stderr, "read the kernel: %v\n", err)
	_, err = os.NewFile(8, "disk").WriteAt([]byte("mine"), 0)
	fmt.Fprintf(os.Stderr, "write the own disk: %v\n", err)
	_, err = os.ReadDir("/usr/share")
	fmt.Fprintf(os.Stderr, "list /usr/share: %v\n", err)
	return 1
}

// everyonesHost makes things to reach whose modes let every user reach them.
func everyonesHost(t *testing.T) reach {
	t.Helper()
	dir := publicDir(t)
	r := reach{Socket: filepath.Join(dir, "s"), Disk: filepath.Join(dir, "disk"), Home: filepath.Join(dir, "home"), PID: os.Getpid()}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", r.Socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	if err := os.Mkdir(r.Home, 0o700); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string]string{r.Disk: "theirs", filepath.Join(r.Home, "key"): "secret", filepath.Join(r.Home, "run"): "#!/bin/sh\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{r.Socket, r.Disk, r.Home, filepath.Join(r.Home, "key"), filepath.Join(r.Home, "run")} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// TestConfined runs a stand-in in the place of QEMU, which tries to reach the
// files, sockets and processes of its user, and checks that all attempts fail.
// The same attempts from this process, which is not confined, must succeed.
func TestConfined(t *testing.T) {
	if confine.ABI() == 0 {
		t.Skip("this kernel has no Landlock")
	}
	r := everyonesHost(t)
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	f, cfg := newFake(t, "reach"), fakeConfig(t)
	own := filepath.Join(t.TempDir(), "own")
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Env = []string{envReach + "=" + string(text)}
	cfg.Disks = []vmm.Disk{{Serial: "own", Path: own, Format: vmm.Raw}}
	_, err = f.Start(t.Context(), cfg)
	exit := (*vmm.ExitError)(nil)
	if !errors.As(err, &exit) {
		t.Fatalf("%v, want an ExitError", err)
	}
	results := make(map[string]string)
	for line := range strings.Lines(exit.Output) {
		name, result, _ := strings.Cut(line, ": ")
		results[name] = strings.TrimSpace(result)
	}
	for _, a := range r.attempts() {
		if got := results[a.name]; !strings.Contains(got, "permission denied") && !strings.Contains(got, "not permitted") {
			t.Errorf("%s: %q, want it refused", a.name, got)
		}
		if err := a.do(); err != nil {
			t.Errorf("%s, unconfined: %v: the attempt shows nothing", a.name, err)
		}
	}
	for _, name := range []string{"read the kernel", "write the own disk", "list /usr/share"} {
		if got := results[name]; got != "<nil>" {
			t.Errorf("%s: %q, want it permitted", name, got)
		}
	}
	if confine.ABI() >= 6 && results["signal the owner"] != "operation not permitted" {
		t.Errorf("signal the owner: %q, want it refused", results["signal the owner"])
	}
	if text, err := os.ReadFile(own); string(text) != "mine" || err != nil {
		t.Errorf("own disk %q, %v", text, err)
	}
}

// TestProgramElsewhere checks the error for a program that cannot run because its
// parts are in a folder that it may not open.
func TestProgramElsewhere(t *testing.T) {
	if confine.ABI() == 0 {
		t.Skip("this kernel has no Landlock")
	}
	f := newFake(t, "crash")
	f.Folders = nil // the script starts a program beside it
	f.Unconfined = true
	m, err := f.Start(t.Context(), fakeConfig(t))
	if err != nil {
		t.Fatalf("unconfined: %v", err)
	}
	if err := m.Wait(); err == nil {
		t.Error("the program did not crash")
	}
	f.Unconfined = false
	if _, err := f.Start(t.Context(), fakeConfig(t)); err == nil || !strings.Contains(err.Error(), "qemu.folders") {
		t.Errorf("%v, want an error that names qemu.folders", err)
	}
}
