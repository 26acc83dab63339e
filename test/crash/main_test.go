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

// The test binary starts itself in stages.
const (
	envStage    = "BANGER_CRASH_STAGE"
	stageInit   = "init"  // process 1 of new namespaces
	stageInside = "tests" // the tests, as its child
	// envScratch is the variable with the folder that the first stage creates, fills and removes.
	envScratch = "BANGER_CRASH_SCRATCH"
)

// suite has the state that all tests share. TestMain sets it.
var suite struct {
	scratch string
	programs
}

// programs are the paths of the programs in the scratch folder.
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
		return m.Run(), nil // each test reports that it needs root
	case os.Getenv(envStage) == stageInit:
		return beInit()
	case os.Getenv(envStage) == stageInside:
		suite.scratch = os.Getenv(envScratch)
		suite.programs = programsIn(suite.scratch)
		return m.Run(), nil
	}
	return outside()
}

// outside creates the scratch folder, builds the programs, and runs the tests in new namespaces.
func outside() (code int, err error) {
	// TestMain has no t.TempDir.
	scratch, err := os.MkdirTemp("", "banger-crash-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch), detachOrphans()) }()
	if err := os.Chmod(scratch, 0o755); err != nil { // QEMU's user needs to enter it
		return 0, err
	}
	if err := buildPrograms(scratch); err != nil {
		return 0, err
	}
	// An interrupt must not leave the loop devices of the tests.
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

// envPrograms is the variable with a folder of programs that the caller has built.
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

// install copies the program name from the folder of envPrograms to the path to. Without that folder it builds the
// program with the given arguments of go build.
func install(to, name string, build ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", to}, build...)...)
	cmd.Env = os.Environ()
	if build[0] != "-race" { // the race detector needs cgo
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

// inNamespaces returns a command that runs this binary with args in new namespaces, which end with this process.
func inNamespaces(ctx context.Context, args []string) *exec.Cmd {
	runtime.LockOSThread() // never unlocked: Pdeathsig takes effect at the end of the thread
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), envStage+"="+stageInit)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
	}
	return cmd
}

// beInit prepares the namespaces, starts the tests, and reaps the processes that they orphan until the tests end. At
// its end the kernel kills the remaining processes.
func beInit() (code int, err error) {
	err = errors.Join(
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		hideNetns(), loopbackUp(),
	)
	if err != nil {
		return 0, fmt.Errorf("prepare namespaces: %w", err)
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

// hideNetns mounts an empty list of network namespaces over the host's list, if the host has one.
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

// needRoot skips the test without root, and fails it in CI.
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

// tool runs a program that must succeed and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}
