package qemu_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/banger-vm/banger/internal/vmm"
	"github.com/banger-vm/banger/internal/vmm/qemu"
)

// If one of these variables is set, the test binary runs as QEMU or as the
// owner of a machine.
const (
	envFake  = "BANGER_TEST_FAKE"
	envCount = "BANGER_TEST_COUNT"
	envOwner = "BANGER_TEST_OWNER"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(envFake); mode != "" {
		os.Exit(fake(mode))
	}
	if os.Getenv(envOwner) != "" {
		os.Exit(owner())
	}
	os.Exit(m.Run())
}

// fake runs as a QEMU that fails in the given mode.
func fake(mode string) int {
	if count := os.Getenv(envCount); count != "" && slices.Contains(os.Args, "kvm") {
		f, err := os.OpenFile(count, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return fail(err)
		}
		if _, err := f.WriteString("."); err != nil {
			return fail(err)
		}
	}
	switch mode {
	case "version":
		fmt.Fprintln(os.Stdout, "QEMU emulator version 9.9.9 (test)\nCopyright")
		return 0
	case "no version":
		fmt.Fprintln(os.Stdout, "hello")
		return 0
	case "refuse":
		fmt.Fprintln(os.Stderr, "Could not access KVM kernel module: Permission denied")
		return 1
	case "reach":
		return reportReach()
	case "mute":
		return blockForever()
	}
	control, err := accept("qmp")
	if err != nil {
		return fail(err)
	}
	switch mode {
	case "flood":
		_, err = control.Write(make([]byte, 1<<20))
		_, _ = io.Copy(io.Discard, control)
		return fail(err)
	case "garbage":
		fmt.Fprintln(control, "220 smtp.example.org ready")
		return blockForever()
	}
	fmt.Fprintln(control, `{"QMP": {"version": {}, "capabilities": []}}`)
	commands := bufio.NewScanner(control)
	commands.Scan()
	fmt.Fprintln(control, `{"event": "RESUME", "timestamp": {}}`)
	fmt.Fprintln(control, `{"return": {}, "id": 99}`)
	fmt.Fprintln(control, `{"return": {}, "id": 1}`)
	return play(mode, control, commands)
}

func play(mode string, control net.Conn, commands *bufio.Scanner) int {
	switch mode {
	case "hang":
		return blockForever()
	case "crash":
		fmt.Fprintln(os.Stderr, strings.Repeat("x", 100<<10)+"KVM internal error. Suberror: 1")
		return fail(syscall.Kill(os.Getpid(), syscall.SIGKILL))
	case "quiet end":
		return 0
	case "sound", "sound but stuck":
		if !slices.Contains(os.Args, "kvm") || !strings.Contains(strings.Join(os.Args, " "), " "+probeWord) {
			return fail(fmt.Errorf("arguments %q", os.Args))
		}
		console, err := accept("console")
		if err != nil {
			return fail(err)
		}
		fmt.Fprint(console, "noise banger: pro")
		fmt.Fprint(console, "be ok\r\n")
		if mode == "sound but stuck" {
			return blockForever()
		}
		return 0
	case "disk full": // STOP after the first command, and no space until cont
		commands.Scan()
		fmt.Fprintln(control, `{"event": "BLOCK_IO_ERROR", "data": {"action": "stop", "nospace": true}}`)
		fmt.Fprintln(control, `{"event": "STOP", "timestamp": {}}`)
		fmt.Fprintln(control, `{"return": {"status": "io-error"}, "id": 2}`)
		commands.Scan()
		fmt.Fprintln(control, `{"event": "RESUME", "timestamp": {}}`)
		fmt.Fprintln(control, `{"return": {}, "id": 3}`)
		commands.Scan()
		fmt.Fprintln(control, `{"return": {"status": "running"}, "id": 4}`)
		return blockForever()
	case "refuse commands":
		for id := 2; commands.Scan(); id++ {
			fmt.Fprintf(control, `{"id": %d, "error": {"class": "GenericError", "desc": "not now"}}`+"\n", id)
		}
	}
	return 0
}

func fail(err error) int {
	fmt.Fprintln(os.Stderr, "fake:", err)
	return 3
}

func blockForever() int {
	_, err := os.NewFile(0, "stdin").Read(make([]byte, 1)) // stdin must be /dev/null, which returns EOF
	if err != io.EOF {
		return fail(err)
	}
	select {}
}

// accept accepts the first connection on the socket that the arguments name.
func accept(id string) (net.Conn, error) {
	form := regexp.MustCompile(`^socket,id=` + id + `,fd=(\d+),server=on,wait=o(n|ff)$`)
	for _, arg := range os.Args {
		if found := form.FindStringSubmatch(arg); found != nil {
			fd, err := strconv.Atoi(found[1])
			if err != nil {
				return nil, err
			}
			l, err := net.FileListener(os.NewFile(uintptr(fd), id))
			if err != nil {
				return nil, err
			}
			return l.Accept()
		}
	}
	return nil, fmt.Errorf("no socket %s in %q", id, os.Args)
}

// publicDir returns a folder that other users can enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// testBinary returns a copy of this program that other users can run. They
// cannot enter the folder of the original.
func testBinary(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(publicDir(t), "qemu.test")
	if out, err := exec.CommandContext(t.Context(), "cp", self, copied).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return copied
}

// A fakeQEMU is a Monitor that runs a fake. Each run with KVM appends a byte to
// the file that stands for the device, which is the only file that the fake may
// write.
type fakeQEMU struct {
	qemu.Monitor
	count string
}

func newFake(t testing.TB, mode string) fakeQEMU {
	t.Helper()
	binary := testBinary(t)
	f := fakeQEMU{count: filepath.Join(filepath.Dir(binary), "kvm")}
	f.Path = filepath.Join(filepath.Dir(binary), "fake")
	f.KVM = f.count
	f.Folders = []string{filepath.Dir(binary)}
	// GORACE keeps the race detector from delaying the exit by a second.
	script := fmt.Sprintf("#!/bin/sh\nGORACE=atexit_sleep_ms=0 %s='%s' %s='%s' exec '%s' \"$@\"\n", envFake, mode, envCount, f.count, binary)
	for _, file := range []struct {
		path, text string
		mode       os.FileMode
	}{{f.Path, script, 0o755}, {f.KVM, "", 0o666}} {
		if err := os.WriteFile(file.path, []byte(file.text), file.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file.path, file.mode); err != nil { // independent of the umask
			t.Fatal(err)
		}
	}
	return f
}

// runs returns how often the fake was started.
func (f *fakeQEMU) runs(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(f.count)
	if err != nil {
		t.Fatal(err)
	}
	return len(data)
}

// The machine of a probe has probeWord on its command line and prints
// probeAnswer.
const (
	probeWord   = "banger.probe"
	probeAnswer = "banger: probe ok"
)

// fakeConfig returns a configuration for a fake, which does not read the files.
func fakeConfig(t testing.TB) vmm.Config {
	t.Helper()
	dir := t.TempDir()
	kernel := filepath.Join(dir, "kernel")
	if err := os.WriteFile(kernel, []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	return vmm.Config{
		Name: "test", Model: vmm.MicroVM, Accel: vmm.TCG, CPUs: 1, Memory: 256 << 20,
		Kernel: kernel, Initrd: kernel, AgentPort: "test", Dir: dir, Cmdline: []string{probeWord},
	}
}
