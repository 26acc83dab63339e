//go:build e2e

package e2e

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// builders are those that every image is built with. What only native promises is asked of it alone.
var builders = []string{"native", "e2fsprogs"}

// suite is what all tests share; TestMain fills it.
var suite struct {
	banger   string // a copy that any user may execute
	registry string // host:port
	scratch  string
}

func TestMain(m *testing.M) {
	code, err := runSuite(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runSuite(m *testing.M) (code int, err error) {
	// The registry dies with the thread that started it (Pdeathsig), so this one must live on.
	runtime.LockOSThread()
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return 0, err
	}
	// TestMain has no t.TempDir.
	suite.scratch, err = os.MkdirTemp("", "banger-e2e-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(suite.scratch)
	if err := os.Chmod(suite.scratch, 0o755); err != nil {
		return 0, err
	}
	suite.banger = filepath.Join(suite.scratch, "banger")
	if err := copyFile("../bin/banger", suite.banger, 0o755); err != nil {
		return 0, fmt.Errorf("%w (make build)", err)
	}
	stop, err := serveImages(filepath.Join(suite.scratch, "registry"))
	if err != nil {
		return 0, err
	}
	code = m.Run()
	for _, w := range shared.of {
		err = errors.Join(err, w.close())
	}
	return code, errors.Join(err, stop())
}

// serveImages runs the registry over the demo's images and returns what ends it.
func serveImages(dir string) (stop func() error, err error) {
	images := os.Getenv("BANGER_TEST_IMAGES")
	if images == "" {
		out, err := exec.Command("../scripts/demo-images").Output()
		if err != nil {
			return nil, fmt.Errorf("make images: %w", err)
		}
		images = strings.TrimSpace(string(out))
	}
	cmd := exec.Command("../scripts/registry", "run", dir)
	cmd.Env = append(os.Environ(), "BANGER_REGISTRY_DATA="+images)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start registry: %w", err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read address of registry: %w", err), cmd.Wait())
	}
	suite.registry = strings.TrimSpace(line)
	return func() error {
		return errors.Join(cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	}, nil
}

func copyFile(from, to string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(out, in)
	return err
}

// reference is the name of one of the demo's images, "app:1", in the suite's registry.
func reference(image string) string { return suite.registry + "/demo/" + image }

// need skips the test where a tool is missing, and fails it in CI, where none may be.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			unavailable(t, tool+" is missing: scripts/install-deps test")
		}
	}
}

// needNative skips what only the native builder promises where the list lacks it.
func needNative(t *testing.T) {
	t.Helper()
	if !slices.Contains(builders, "native") {
		t.Skip("there is no native builder")
	}
}

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

// eventually waits until the condition holds, looking every few milliseconds.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline, tick := time.After(limit), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v", what, limit)
		case <-tick.C:
		}
	}
}
