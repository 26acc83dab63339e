//go:build e2e

package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The stages in which the test binary starts itself.
const (
	envStage    = "BANGER_CRASH_STAGE"
	stageInit   = "init"  // process 1 of new namespaces
	stageInside = "tests" // the tests, as its child
	// envScratch is the folder that the first stage has made and filled, and will remove.
	envScratch = "BANGER_CRASH_SCRATCH"
)

// suite is what all tests share; TestMain fills it.
var suite struct {
	scratch string
	programs
}

// programs are the folders in the scratch folder that have them.
type programs struct {
	banger, raceBanger string // the program
	stub               string // a folder for $PATH
}

func programsIn(scratch string) programs {
	return programs{
		banger: filepath.Join(scratch, "bin", "banger"), raceBanger: filepath.Join(scratch, "race", "banger"),
		stub: filepath.Join(scratch, "stub"),
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := stage(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		code = 1
	}
	os.Exit(code)
}

func stage(m *testing.M) (code int, err error) {
	switch {
	case os.Geteuid() != 0:
		return m.Run(), nil // each test says that it needs root
	case os.Getenv(envStage) == stageInit:
		return beInit()
	case os.Getenv(envStage) == stageInside:
		suite.scratch = os.Getenv(envScratch)
		suite.programs = programsIn(suite.scratch)
		return m.Run(), nil
	}
	return outside()
}

// outside makes the scratch folder and what is in it, and has the tests run in namespaces.
func outside() (code int, err error) {
	// TestMain has no t.TempDir.
	scratch, err := os.MkdirTemp("", "banger-crash-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch), detachOrphans()) }()
	if err := os.Chmod(scratch, 0o755); err != nil { // QEMU's user passes through
		return 0, err
	}
	if err := buildPrograms(scratch); err != nil {
		return 0, err
	}
	// Who interrupts the tests must not keep their loop devices.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	cmd := inNamespaces(ctx, os.Args[1:])
	cmd.Env = append(cmd.Env, envScratch+"="+scratch, "TMPDIR="+scratch) // for t.TempDir
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return exitCode(cmd.Run())
}

func exitCode(err error) (int, error) {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return max(exit.ExitCode(), 1), nil
	}
	return 0, err
}

// envPrograms is a folder with the programs, where whoever started the tests has built them.
const envPrograms = "BANGER_CRASH_PROGRAMS"

func buildPrograms(scratch string) error {
	p := programsIn(scratch)
	stub := filepath.Join(p.stub, "qemu-system-x86_64")
	err := errors.Join(
		install(p.banger, "banger", "../crashbanger"), install(stub, "stubvmm", "../stubvmm"),
		install(p.raceBanger, "race/banger", "-race", "../crashbanger"),
	)
	if err != nil {
		return err
	}
	const setUID = os.ModeSetuid | 0o755 // see stubvmm
	return os.Chmod(stub, setUID)
}

// install copies the program to its place, or builds it there by the arguments of go build.
func install(to, name string, build ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", to}, build...)...)
	cmd.Env = os.Environ()
	if build[0] != "-race" { // whose library is in C
		cmd.Env = append(cmd.Env, "CGO_ENABLED=0")
	}
	if dir := os.Getenv(envPrograms); dir != "" {
		cmd = exec.Command("install", "-D", filepath.Join(dir, name), to)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}

// inNamespaces is the command that runs this binary with args in new namespaces, which end with this process.
func inNamespaces(ctx context.Context, args []string) *exec.Cmd {
	runtime.LockOSThread() // never unlocked: Pdeathsig is of the thread
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envStage+"="+stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	return cmd
}

// beInit readies the namespaces, starts the tests, and reaps what they orphan until they end. When it ends the
// kernel kills what is left.
func beInit() (code int, err error) {
	err = errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		hideNetns(), loopbackUp(),
	)
	if err != nil {
		return 0, fmt.Errorf("ready namespaces: %w", err)
	}
	if err := os.Setenv(envStage, stageInside); err != nil {
		return 0, err
	}
	p, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}})
	if err != nil {
		return 0, err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, err
		case pid == p.Pid && status.Exited():
			return status.ExitStatus(), nil
		case pid == p.Pid:
			return 0, fmt.Errorf("tests ended by %v", status.Signal())
		}
	}
}

// hideNetns gives these namespaces a list of their own of network namespaces, where the host has one.
func hideNetns() error {
	err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, "mode=755")
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// needRoot skips where nothing can be tested, and fails there in CI.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		unavailable(t, "needs root")
	}
}

func unavailable(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// tool runs a tool that must succeed and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
