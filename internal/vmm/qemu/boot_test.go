package qemu_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// The tests of this file boot a real kernel. They need QEMU and
//
//	BANGER_TEST_KERNEL   a bzImage or an ELF kernel
//	BANGER_TEST_MODULES  the folder /lib/modules/VERSION of that kernel
//	BANGER_TEST_INITRD   or an initramfs made of them and testdata/guest
const (
	envKernel  = "BANGER_TEST_KERNEL"
	envModules = "BANGER_TEST_MODULES"
	envInitrd  = "BANGER_TEST_INITRD"
	port       = "test.agent" // port name in testdata/guest
)

// bootLimit is the time limit of a boot on a loaded host without KVM.
const bootLimit = 90 * time.Second

// guestModules lists the modules that testdata/guest loads, in load order.
var guestModules = strings.Fields("virtio_ring virtio virtio_mmio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk virtio_console")

// A console keeps the guest's console output.
type console struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.Write(p)
}

func (c *console) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

// guest returns a configuration that boots testdata/guest, in a folder of its
// own. It logs the console output if the test fails.
func guest(t *testing.T, model vmm.Model) (vmm.Config, *console) {
	t.Helper()
	kernel, modules, initrd := os.Getenv(envKernel), os.Getenv(envModules), os.Getenv(envInitrd)
	if kernel == "" || modules == "" && initrd == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("needs %s and %s: scripts/test sets them", envKernel, envModules)
		}
		t.Skipf("needs %s and %s", envKernel, envModules)
	}
	if _, _, err := (qemu.Monitor{}).Find(t.Context()); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	seen := &console{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("console:\n%s", seen)
		}
	})
	dir := t.TempDir()
	if initrd == "" {
		initrd = filepath.Join(dir, "initrd")
		if err := os.WriteFile(initrd, packGuest(t, modules), 0o600); err != nil { // private, like an initramfs that holds keys
			t.Fatal(err)
		}
	}
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{
		Name: "test", Model: model, Accel: vmm.TCG, CPUs: 1, Memory: 256 << 20,
		Kernel: kernel, Initrd: initrd, AgentPort: port, Dir: run, Console: seen,
	}, seen
}

var packOnce = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "banger-guest-") // shared by the tests of the package
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "init")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "./testdata/guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return os.ReadFile(program)
})

// packGuest returns an initramfs in the newc format of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst.
func packGuest(t *testing.T, modules string) []byte {
	t.Helper()
	program, err := packOnce()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	pad := func() {
		for out.Len()%4 != 0 {
			out.WriteByte(0)
		}
	}
	add := func(name string, mode int, data []byte, major, minor int) {
		out.WriteString("070701")
		for _, v := range []int{out.Len(), mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0} {
			fmt.Fprintf(&out, "%08x", v)
		}
		out.WriteString(name + "\x00")
		pad()
		out.Write(data)
		pad()
	}
	add("dev", 0o40755, nil, 0, 0)
	add("dev/console", 0o20600, nil, 5, 1)
	add("modules", 0o40755, nil, 0, 0)
	add("init", 0o100755, program, 0, 0)
	for i, name := range guestModules {
		var data []byte
		err := filepath.WalkDir(modules, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.Name() == name+".ko" {
				data, err = os.ReadFile(path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if data == nil {
			t.Fatalf("no %s.ko in %s", name, modules)
		}
		add(fmt.Sprintf("modules/%02d-%s.ko", i, name), 0o100644, data, 0, 0)
	}
	add("TRAILER!!!", 0, nil, 0, 0)
	return out.Bytes()
}

func start(t *testing.T, cfg vmm.Config) *qemu.Machine {
	t.Helper()
	m, err := qemu.Monitor{}.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Kill(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// An agent is the host's end of the guest's serial port.
type agent struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
}

func dialAgent(t *testing.T, m *qemu.Machine) *agent {
	t.Helper()
	conn, err := m.DialAgent(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(bootLimit)); err != nil {
		t.Fatal(err)
	}
	return &agent{t: t, conn: conn, lines: bufio.NewReader(conn)}
}

// ask sends a line, which the guest reads once it has booted, and returns the
// answer.
func (a *agent) ask(line string) string {
	a.t.Helper()
	if _, err := io.WriteString(a.conn, line+"\n"); err != nil {
		a.t.Fatal(err)
	}
	answer, err := a.lines.ReadString('\n')
	if err != nil {
		a.t.Fatalf("answer to %q: %v", line, err)
	}
	return strings.TrimSpace(answer)
}

func waitEnded(t *testing.T, m *qemu.Machine) {
	t.Helper()
	select {
	case <-m.Done():
	case <-time.After(bootLimit):
		t.Fatal("the process has not ended")
	}
}

// TestBoot boots one machine of each model and checks the port, the disks, the
// console, pausing, and that a power-off is not an error.
func TestBoot(t *testing.T) {
	for _, model := range []vmm.Model{vmm.MicroVM, vmm.Q35} {
		t.Run(string(model), func(t *testing.T) { testBoot(t, model) })
	}
}

func testBoot(t *testing.T, model vmm.Model) {
	cfg, seen := guest(t, model)
	cfg.CPUs = 2
	cfg.Cmdline = []string{"banger.word=1"}
	cfg.Disks = testDisks(t)
	began := time.Now()
	m := start(t, cfg)
	a := dialAgent(t, m)
	if got := a.ask("hello"); !strings.HasPrefix(got, "hello at ") {
		t.Fatalf("the guest answered %q", got)
	}
	t.Logf("%s answered after %s", model, time.Since(began).Round(time.Millisecond))
	unprivileged(t, m)
	if got := a.ask("cmdline"); !strings.Contains(got, " banger.word=1") || !strings.Contains(got, "tsc_early_khz=") {
		t.Errorf("kernel command line %q", got)
	}
	if got, want := a.ask("disks"), "raw=0 over=0 base=1"; got != want {
		t.Errorf("disks %q, want %q", got, want)
	}
	for _, serial := range []string{"raw", "over"} {
		if got, want := a.ask("read "+serial), "base"; got != want {
			t.Errorf("disk %s holds %q, want %q", serial, got, want)
		}
		if got := a.ask("write " + serial + " new"); got != "ok" {
			t.Errorf("write to %s: %s", serial, got)
		}
	}
	if got := a.ask("write base new"); !strings.HasPrefix(got, "error: ") {
		t.Errorf("write to a read-only disk: %s", got)
	}
	lockedOut(t, cfg)
	pauses(t, m)
	a.ask("say the last word")
	if got := a.ask("poweroff"); got != "bye" {
		t.Errorf("power off: %s", got)
	}
	waitEnded(t, m)
	if err := m.Wait(); err != nil || m.WasReset() {
		t.Errorf("power-off: %v, reset %t", err, m.WasReset())
	}
	if !strings.Contains(seen.String(), "the last word") {
		t.Error("the console lost the last word")
	}
	for path, want := range map[string]string{cfg.Disks[0].Path: "new\n", cfg.Disks[1].Backing: "base"} {
		if got := firstBytes(t, path, len(want)); got != want {
			t.Errorf("%s holds %q, want %q", filepath.Base(path), got, want)
		}
	}
}

// testDisks returns a raw disk, an overlay, and the overlay's base read-only.
func testDisks(t *testing.T) []vmm.Disk {
	t.Helper()
	dir := filepath.Join(t.TempDir(), `a,b "c" \ d`) // QEMU must not see any part of a path
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	raw, base, over := filepath.Join(dir, "raw"), filepath.Join(dir, "base"), filepath.Join(dir, "over.qcow2")
	for _, path := range []string{raw, base} {
		if err := os.WriteFile(path, []byte("base\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(t.Context(), "qemu-img", "create", "-q", "-f", "qcow2", over, "1M").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return []vmm.Disk{
		{Serial: "raw", Path: raw, Format: vmm.Raw},
		{Serial: "over", Path: over, Format: vmm.QCOW2, Backing: base},
		{Serial: "base", Path: base, Format: vmm.Raw, ReadOnly: true},
	}
}

func firstBytes(t *testing.T, path string, n int) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data[:n])
}

// unprivileged checks that no user or group ID of the process is root's, and
// that it has no capabilities and cannot gain any.
func unprivileged(t *testing.T, m *qemu.Machine) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch name {
		case "Uid", "Gid", "Groups":
			if slices.Contains(fields, "0") {
				t.Errorf("%s", line)
			}
			checked++
		case "CapEff", "CapPrm", "CapInh", "CapAmb":
			if n, err := strconv.ParseUint(fields[0], 16, 64); n != 0 || err != nil {
				t.Errorf("%s", line)
			}
			checked++
		case "NoNewPrivs", "Seccomp":
			if fields[0] == "0" {
				t.Errorf("%s", line)
			}
			checked++
		}
	}
	if checked != 9 {
		t.Errorf("%d lines of the process's status checked, want 9", checked)
	}
}

// lockedOut checks that a second machine cannot write to the same disks.
func lockedOut(t *testing.T, cfg vmm.Config) {
	t.Helper()
	cfg.Dir, cfg.Console = t.TempDir(), nil
	for _, d := range cfg.Disks[:2] {
		cfg.Disks = []vmm.Disk{d}
		m, err := qemu.Monitor{}.Start(t.Context(), cfg)
		if err == nil {
			t.Errorf("a second machine has disk %s", d.Serial)
			if err := m.Kill(); err != nil {
				t.Error(err)
			}
			continue
		}
		exit := (*vmm.ExitError)(nil)
		if !errors.As(err, &exit) || !strings.Contains(exit.Output, "lock") {
			t.Errorf("a second machine with disk %s: %v", d.Serial, err)
		}
	}
}

func pauses(t *testing.T, m *qemu.Machine) {
	t.Helper()
	for _, step := range []struct {
		do   func(context.Context) error
		want string
	}{{m.Stop, "paused"}, {m.Cont, "running"}} {
		if err := step.do(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, err := m.QueryStatus(t.Context()); got != step.want || err != nil {
			t.Errorf("status %q, %v, want %s", got, err, step.want)
		}
	}
}

// TestEnds covers the ends of a machine other than a power-off.
func TestEnds(t *testing.T) {
	t.Run("guest panics", func(t *testing.T) {
		cfg, _ := guest(t, vmm.MicroVM)
		m := start(t, cfg)
		a := dialAgent(t, m)
		a.ask("hello")
		if _, err := io.WriteString(a.conn, "panic\n"); err != nil {
			t.Fatal(err)
		}
		waitEnded(t, m)
		if err := m.Wait(); err != nil || !m.WasReset() {
			t.Errorf("panic: %v, reset %t", err, m.WasReset())
		}
	})
	t.Run("quit", func(t *testing.T) {
		cfg, _ := guest(t, vmm.MicroVM)
		m := start(t, cfg)
		if err := m.Quit(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Wait(); err != nil || m.WasReset() {
			t.Errorf("quit: %v, reset %t", err, m.WasReset())
		}
		if err := m.Kill(); err != nil {
			t.Errorf("kill after the end: %v", err)
		}
	})
	t.Run("killed from outside", func(t *testing.T) {
		cfg, _ := guest(t, vmm.MicroVM)
		m := start(t, cfg)
		if err := syscall.Kill(m.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitEnded(t, m)
		exit := (*vmm.ExitError)(nil)
		if err := m.Wait(); !errors.As(err, &exit) || exit.Signal != "SIGKILL" || exit.Code != -1 {
			t.Errorf("killed: %v", err)
		}
	})
	t.Run("sockets are used again", func(t *testing.T) {
		cfg, _ := guest(t, vmm.MicroVM)
		first := start(t, cfg)
		if m, err := (qemu.Monitor{}).Start(t.Context(), cfg); err == nil {
			t.Errorf("a second machine in the folder of the first: %v", m.Kill())
		}
		if err := first.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := start(t, cfg).Kill(); err != nil {
			t.Fatal(err)
		}
	})
}
