//go:build e2e

package crash

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// A sandbox is a set of folders that one user's banger may write to: home, data, cache, sockets, temporary files.
type sandbox struct {
	dir    string
	banger string // the program
	path   string // $PATH
}

// An outcome is the result of a command of banger.
type outcome struct {
	args           []string
	stdout, stderr string
	code           int // -1 if a signal ended it
	hung           bool
	took           time.Duration
}

func (o outcome) String() string {
	return fmt.Sprintf("banger %s: code %d after %v\n%s%s", strings.Join(o.args, " "), o.code, o.took.Round(time.Millisecond), o.stdout, o.stderr)
}

// folders returns the names of the folders in a sandbox that banger uses.
func folders() []string { return []string{"home", "data", "cache", "config", "run", "tmp"} }

func makeSandbox(t *testing.T, dir string) sandbox {
	t.Helper()
	for _, sub := range append(folders(), "out") {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return sandbox{dir: dir, banger: suite.banger, path: suite.stub + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
}

// withQEMU returns the sandbox with real machines in QEMU.
func (box sandbox) withQEMU() sandbox {
	box.path = strings.TrimPrefix(box.path, suite.stub+":")
	return box
}

func (box sandbox) in(parts ...string) string {
	return filepath.Join(append([]string{box.dir}, parts...)...)
}

// command returns a command of banger with none of the caller's environment.
func (box sandbox) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, box.banger, args...)
	cmd.Dir = box.in("home")
	cmd.Env = []string{
		"PATH=" + box.path, "HOME=" + box.in("home"), "TMPDIR=" + box.in("tmp"),
		"XDG_DATA_HOME=" + box.in("data"), "XDG_CACHE_HOME=" + box.in("cache"),
		"XDG_CONFIG_HOME=" + box.in("config"), "XDG_RUNTIME_DIR=" + box.in("run"),
		"GORACE=atexit_sleep_ms=0 log_path=" + box.in("out", "race"),
	}
	// A daemon must not hold the test's pipes open; do reports it.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// commandLimit bounds the duration of a command, at many times the usual one.
const commandLimit = 60 * time.Second

// do runs a command to its end. It calls meanwhile, unless that is nil, when the process has been started.
func (box sandbox) do(t *testing.T, meanwhile func(pid int), args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := box.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile(cmd.Process.Pid)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if errors.Is(err, exec.ErrWaitDelay) {
		t.Errorf("banger %s: another process holds its output open", strings.Join(args, " "))
	} else if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		t.Fatal(err)
	}
	return outcome{args, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), ctx.Err() != nil, time.Since(start)}
}

func (box sandbox) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return box.do(t, nil, args...)
}

// must is run for a command that has to succeed.
func (box sandbox) must(t *testing.T, args ...string) outcome {
	t.Helper()
	got := box.run(t, args...)
	if got.code != 0 {
		t.Fatalf("%v", got)
	}
	return got
}

// A machineState is a machine in the output of ps.
type machineState struct {
	ID, Name, State string
	ExitCode        int
}

// machines returns all machines by name.
func (box sandbox) machines(t *testing.T) map[string]machineState {
	t.Helper()
	got := box.must(t, "ps", "-a", "--json")
	var list []machineState
	if err := json.Unmarshal([]byte(got.stdout), &list); err != nil {
		t.Fatalf("%v\n%v", err, got)
	}
	out := make(map[string]machineState, len(list))
	for _, m := range list {
		out[m.Name] = m
	}
	return out
}

// stubImage is the image of machines that run in the stub.
const stubImage = "stub:1"

// newSandbox returns a new sandbox with a kernel and the image for stubs. It copies a template, which the first call makes.
func newSandbox(t *testing.T) sandbox {
	t.Helper()
	needRoot(t)
	template := filepath.Join(suite.scratch, "template")
	if _, err := os.Stat(template); err != nil {
		box := makeSandbox(t, template+".work")
		importKernel(t, box)
		archive := box.in("out", "image.tar")
		writeImage(t, archive)
		box.must(t, "image", "import", "--quiet", "--name", stubImage, "tar:"+archive)
		if err := os.Rename(box.dir, template); err != nil {
			t.Fatal(err)
		}
	}
	return copySandbox(t, template)
}

func copySandbox(t *testing.T, from string) sandbox {
	t.Helper()
	dir := t.TempDir()
	tool(t, "cp", "-a", "--sparse=always", from+"/.", dir)
	box := makeSandbox(t, dir)
	t.Cleanup(func() { box.end(t) })
	return box
}

// end kills the processes of the sandbox and removes it.
func (box sandbox) end(t *testing.T) {
	t.Helper()
	box.killAll()
	if err := errors.Join(deleteTaps(), detachLoops(box.dir), os.RemoveAll(box.dir)); err != nil {
		t.Error(err)
	}
}

// deleteTaps removes the taps of killed machines from the network namespace, which all sandboxes of a process share.
func deleteTaps() error {
	all, err := netlink.LinkList()
	errs := []error{err}
	for _, link := range all {
		if strings.HasPrefix(link.Attrs().Name, "bgr") {
			errs = append(errs, netlink.LinkDel(link))
		}
	}
	return errors.Join(errs...)
}

// killAll kills every process of the sandbox and waits for their end.
func (box sandbox) killAll() {
	eventually(recoveryLimit, func() bool {
		left := false
		for _, p := range processes() {
			if p.inSandbox(box.dir) {
				left = true
				syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		return !left
	})
}

func importKernel(t *testing.T, box sandbox) {
	t.Helper()
	kernel, modules := os.Getenv("BANGER_TEST_KERNEL"), os.Getenv("BANGER_TEST_MODULES")
	if kernel == "" {
		dir := strings.TrimSpace(tool(t, "../../scripts/test-kernel"))
		kernel, modules = filepath.Join(dir, "vmlinux"), filepath.Join(dir, "modules")
	}
	box.must(t, "kernel", "import", "--quiet", "--kernel", kernel, "--modules", modules, "--name", "default")
	// If QEMU's user may not read the kernel, each start copies it into memory: 50 MiB, in about 50 ms.
	paths, err := filepath.Glob(box.in("data", "banger", "kernels", "*", "kernel"))
	check(t, err)
	for _, path := range paths {
		check(t, os.Chmod(path, 0o644))
	}
}

// writeImage writes the archive of an image. Its programs have no content: the guest of a stub runs those of the host.
func writeImage(t *testing.T, path string) {
	t.Helper()
	var program bytes.Buffer
	const headerSize = 64
	err := binary.Write(&program, binary.LittleEndian, elf.Header64{
		Ident:   [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:    uint16(elf.ET_EXEC),
		Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: headerSize, Phentsize: 56,
	})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	for _, name := range strings.Fields("cat echo sh sleep true yes") {
		header := &tar.Header{Name: "bin/" + name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(program.Len())}
		if err := tw.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(program.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(tw.Close(), os.WriteFile(path, archive.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
}
