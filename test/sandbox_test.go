//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
	"golang.org/x/sys/unix"
)

// unprivilegedUID is the number of a user without privileges and without a home.
const unprivilegedUID = 65534

// A sandbox is a set of folders that one user's banger may write to: home, data, cache, sockets, temporary files.
type sandbox struct {
	dir string
	uid uint32
}

// An outcome is the result of a command of banger.
type outcome struct {
	stdout, stderr string
	code           int // -1 if a signal ended it
}

func newSandbox(t *testing.T) sandbox {
	t.Helper()
	return sandboxIn(t, t.TempDir(), uint32(os.Geteuid())).closedWith(t)
}

// newUnprivilegedSandbox returns the sandbox of a user without privileges.
func newUnprivilegedSandbox(t *testing.T) sandbox {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	// Only root may enter the test's folder above it.
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	return sandboxIn(t, dir, unprivilegedUID).closedWith(t)
}

func sandboxIn(t *testing.T, dir string, uid uint32) sandbox {
	t.Helper()
	box := sandbox{dir: dir, uid: uid}
	for _, sub := range []string{"", "home", "data", "cache", "config", "run", "tmp", "out"} {
		path := box.path(sub)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, int(uid), int(uid)); err != nil {
			t.Fatal(err)
		}
	}
	return box
}

// closedWith closes the sandbox when the test ends.
func (box sandbox) closedWith(t *testing.T) sandbox {
	t.Helper()
	t.Cleanup(func() {
		if err := box.close(); err != nil {
			t.Errorf("close %s: %v", box.dir, err)
		}
	})
	return box
}

// close removes the machines of the sandbox and ends its daemon.
func (box sandbox) close() error {
	if _, err := os.Stat(box.path("data", "banger", "machines")); err != nil {
		return nil // no daemon has run
	}
	ctx, cancel := context.WithTimeout(context.Background(), runLimit)
	defer cancel()
	ids, err := box.command(ctx, "ps", "-aq").Output()
	if err != nil {
		return fmt.Errorf("list machines: %w", err)
	}
	if len(ids) > 0 {
		if out, err := box.command(ctx, append([]string{"rm", "-f"}, strings.Fields(string(ids))...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("remove machines: %w: %s", err, out)
		}
	}
	sockets, err := filepath.Glob(box.path("run", "banger", "*", "daemon.sock"))
	for _, socket := range sockets {
		err = errors.Join(err, endDaemon(ctx, &api.Client{Socket: socket}))
	}
	return err
}

// endDaemon ends a daemon and waits for the end of its process.
func endDaemon(ctx context.Context, daemon *api.Client) error {
	info, err := daemon.Info(ctx)
	if err != nil {
		return err
	}
	process, err := unix.PidfdOpen(info.PID, 0)
	if err != nil {
		return fmt.Errorf("open process %d: %w", info.PID, err)
	}
	defer unix.Close(process)
	if err := daemon.Shutdown(ctx); err != nil {
		return err
	}
	const patience = 10 * time.Second
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	if err == nil && n == 0 {
		err = fmt.Errorf("daemon, process %d: still there after %v", info.PID, patience)
	}
	return err
}

func (box sandbox) path(parts ...string) string {
	return filepath.Join(append([]string{box.dir}, parts...)...)
}

// command returns a command of banger as the user of the sandbox. Its environment has PATH of the caller's alone.
func (box sandbox) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, suite.banger, args...)
	cmd.Dir = box.path("home")
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + box.path("home"), "TMPDIR=" + box.path("tmp"),
		"XDG_DATA_HOME=" + box.path("data"), "XDG_CACHE_HOME=" + box.path("cache"),
		"XDG_CONFIG_HOME=" + box.path("config"), "XDG_RUNTIME_DIR=" + box.path("run"),
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if int(box.uid) != os.Geteuid() {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: box.uid, Gid: box.uid}
	}
	// A child that outlives a killed banger must not hold the test's pipes.
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// runLimit bounds the duration of a command, at many times the usual one.
const runLimit = 5 * time.Minute

func (box sandbox) run(t *testing.T, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runLimit)
	defer cancel()
	return finish(t, box.command(ctx, args...), nil)
}

// must is run for a command that has to succeed.
func (box sandbox) must(t *testing.T, args ...string) outcome {
	t.Helper()
	got := box.run(t, args...)
	if got.code != 0 {
		t.Fatalf("banger %s: exit code %d\n%s", strings.Join(args, " "), got.code, got.stderr)
	}
	return got
}

// finish runs the command to its end. It calls meanwhile, unless that is nil, when the process has been started.
func finish(t *testing.T, cmd *exec.Cmd, meanwhile func(*os.Process)) outcome {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if meanwhile != nil {
		meanwhile(cmd.Process)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatal(err)
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// inventory returns every path in the sandbox.
func (box sandbox) inventory(t *testing.T) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(box.dir, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, strings.TrimPrefix(path, box.dir))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// expectInventory checks that the sandbox has exactly the paths in want: those of one without failures.
func (box sandbox) expectInventory(t *testing.T, want []string) {
	t.Helper()
	got := box.inventory(t)
	box.expectNoMore(t, want)
	for _, path := range want {
		if !slices.Contains(got, path) {
			t.Errorf("missing: %s", path)
		}
	}
}

// expectNoMore checks that the sandbox has no path besides those in want, and that its cache is intact.
func (box sandbox) expectNoMore(t *testing.T, want []string) {
	t.Helper()
	for _, path := range box.inventory(t) {
		if !slices.Contains(want, path) {
			t.Errorf("left over: %s", path)
		}
	}
	box.expectSoundCache(t)
}

// blobs returns the folder of the blobs in the cache.
func (box sandbox) blobs() string { return box.path("cache/banger/oci/blobs/sha256") }

// expectSoundCache checks that every cached blob has the digest in its name (P3).
func (box sandbox) expectSoundCache(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(box.blobs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if digest := digestOf(t, filepath.Join(box.blobs(), entry.Name())); digest != entry.Name() {
			t.Errorf("blob %s has the digest %s", entry.Name(), digest)
		}
	}
}

func digestOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// expectNoProcess checks that every process of the sandbox except its daemon ends soon.
func (box sandbox) expectNoProcess(t *testing.T) {
	t.Helper()
	eventually(t, 5*time.Second, "processes of "+box.dir+" end", func() bool { return len(box.processes(t)) == 0 })
}

// processes returns the command lines of the sandbox's processes without its daemon, which stays for the next
// command. Such a process names the sandbox in its command line, works in it, or has a file of it open: QEMU inherits
// its files and works elsewhere.
func (box sandbox) processes(t *testing.T) []string {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil || len(lines) == 0 {
		t.Fatalf("read /proc: %d processes, %v", len(lines), err)
	}
	var out []string
	for _, path := range lines {
		// The process may have ended since it was listed.
		line, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if err != nil {
			continue
		}
		if bytes.Contains(line, []byte("\x00daemon\x00")) {
			continue
		}
		if bytes.Contains(line, []byte(box.dir)) || strings.HasPrefix(cwd, box.dir) || box.holds(filepath.Dir(path)) {
			out = append(out, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}

// holds reports whether another process, given by its folder in /proc, has a file of the sandbox open.
func (box sandbox) holds(process string) bool {
	if process == "/proc/"+strconv.Itoa(os.Getpid()) {
		return false
	}
	descriptors, _ := filepath.Glob(filepath.Join(process, "fd", "*"))
	return slices.ContainsFunc(descriptors, func(fd string) bool {
		to, err := os.Readlink(fd) // it may be closed by now
		return err == nil && strings.HasPrefix(to, box.dir+"/")
	})
}

// expectComplaint checks an error of the command line: exit code 1, one line that starts with "banger: ", and each
// of the texts in the output.
func expectComplaint(t *testing.T, got outcome, texts ...string) {
	t.Helper()
	if got.code != 1 {
		t.Errorf("exit code %d, want 1", got.code)
	}
	var complaints []string
	for line := range strings.Lines(got.stderr) {
		if strings.HasPrefix(line, "banger: ") {
			complaints = append(complaints, line)
		}
	}
	if len(complaints) != 1 {
		t.Fatalf("%d lines start with banger:, want 1\n%s", len(complaints), got.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(got.stderr, text) {
			t.Errorf("the error does not contain %q\n%s", text, got.stderr)
		}
	}
}
