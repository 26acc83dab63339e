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

// A world is all that one user's banger may write to.
type world struct {
	dir    string
	banger string // the program
	path   string // $PATH
}

// An outcome is how a run of banger ended.
type outcome struct {
	args           []string
	stdout, stderr string
	code           int // -1 when a signal ended it
	hung           bool
	took           time.Duration
}

func (o outcome) String() string {
	return fmt.Sprintf("banger %s: code %d after %v\n%s%s", strings.Join(o.args, " "), o.code, o.took.Round(time.Millisecond), o.stdout, o.stderr)
}

// folders are those of a world that banger is told of.
func folders() []string { return []string{"home", "data", "cache", "config", "run", "tmp"} }

func makeWorld(t *testing.T, dir string) world {
	t.Helper()
	for _, sub := range append(folders(), "out") {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return world{dir: dir, banger: suite.banger, path: suite.stub + ":" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}
}

// withQEMU is the world with real machines.
func (w world) withQEMU() world {
	w.path = strings.TrimPrefix(w.path, suite.stub+":")
	return w
}

func (w world) in(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}

// command is banger with nothing of the caller's environment.
func (w world) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, w.banger, args...)
	cmd.Dir = w.in("home")
	cmd.Env = []string{
		"PATH=" + w.path, "HOME=" + w.in("home"), "TMPDIR=" + w.in("tmp"),
		"XDG_DATA_HOME=" + w.in("data"), "XDG_CACHE_HOME=" + w.in("cache"),
		"XDG_CONFIG_HOME=" + w.in("config"), "XDG_RUNTIME_DIR=" + w.in("run"),
		"GORACE=atexit_sleep_ms=0 log_path=" + w.in("out", "race"),
	}
	// A daemon that holds the test's pipes is a fault of its own, which finish reports.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// commandLimit is how long a command may take that hangs: many times what any needs.
const commandLimit = 60 * time.Second

// do runs a command to its end. The process is handed to meanwhile, which may be nil, once it runs.
func (w world) do(t *testing.T, meanwhile func(pid int), args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := w.command(ctx, args...)
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
		t.Errorf("banger %s: somebody holds its output open", strings.Join(args, " "))
	} else if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		t.Fatal(err)
	}
	return outcome{args, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), ctx.Err() != nil, time.Since(start)}
}

func (w world) run(t *testing.T, args ...string) outcome {
	t.Helper()
	return w.do(t, nil, args...)
}

// must is run for what has to succeed.
func (w world) must(t *testing.T, args ...string) outcome {
	t.Helper()
	got := w.run(t, args...)
	if got.code != 0 {
		t.Fatalf("%v", got)
	}
	return got
}

// A machineState is what ps says of a machine.
type machineState struct {
	ID, Name, State string
	ExitCode        int
}

// machines asks for all machines by name.
func (w world) machines(t *testing.T) map[string]machineState {
	t.Helper()
	got := w.must(t, "ps", "-a", "--json")
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

// newWorld is a fresh world with a kernel and the image for stubs: a copy of one that the first test makes.
func newWorld(t *testing.T) world {
	t.Helper()
	needRoot(t)
	template := filepath.Join(suite.scratch, "template")
	if _, err := os.Stat(template); err != nil {
		w := makeWorld(t, template+".work")
		importKernel(t, w)
		archive := w.in("out", "image.tar")
		writeImage(t, archive)
		w.must(t, "image", "import", "--quiet", "--name", stubImage, "tar:"+archive)
		if err := os.Rename(w.dir, template); err != nil {
			t.Fatal(err)
		}
	}
	return copyWorld(t, template)
}

func copyWorld(t *testing.T, from string) world {
	t.Helper()
	dir := t.TempDir()
	tool(t, "cp", "-a", "--sparse=always", from+"/.", dir)
	w := makeWorld(t, dir)
	t.Cleanup(func() { w.end(t) })
	return w
}

// end kills what lives in the world and removes it.
func (w world) end(t *testing.T) {
	t.Helper()
	w.killAll()
	if err := errors.Join(deleteTaps(), detachLoops(w.dir), os.RemoveAll(w.dir)); err != nil {
		t.Error(err)
	}
}

// deleteTaps removes what killed machines leave in the network namespace, which all worlds of a process share.
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

// killAll ends every process that has to do with the world.
func (w world) killAll() {
	eventually(settleLimit, func() bool {
		left := false
		for _, p := range processes() {
			if p.inWorld(w.dir) {
				left = true
				syscall.Kill(p.pid, syscall.SIGKILL)
			}
		}
		return !left
	})
}

func importKernel(t *testing.T, w world) {
	t.Helper()
	kernel, modules := os.Getenv("BANGER_TEST_KERNEL"), os.Getenv("BANGER_TEST_MODULES")
	if kernel == "" {
		dir := strings.TrimSpace(tool(t, "../../scripts/test-kernel"))
		kernel, modules = filepath.Join(dir, "vmlinux"), filepath.Join(dir, "modules")
	}
	w.must(t, "kernel", "import", "--quiet", "--kernel", kernel, "--modules", modules, "--name", "default")
	// What QEMU's user may not read is copied into memory at each start: 50 MiB, and as many milliseconds.
	paths, err := filepath.Glob(w.in("data", "banger", "kernels", "*", "kernel"))
	check(t, err)
	for _, path := range paths {
		check(t, os.Chmod(path, 0o644))
	}
}

// writeImage makes an image's archive. Its programs are names alone: what a stub's guest runs is the host's.
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
