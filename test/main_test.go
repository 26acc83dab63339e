//go:build e2e

package e2e

import (
	"bufio"
	"context"
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

	"github.com/banger-vm/banger/internal/base/poll"
)

// builders are the builders that every image is built with. Some tests are for the native builder alone.
var builders = []string{"native", "e2fsprogs"}

// suite has the state that all tests share. TestMain sets it.
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
	// The kernel kills the registry when the thread that started it ends (Pdeathsig).
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
	for _, box := range shared.of {
		err = errors.Join(err, box.close())
	}
	return code, errors.Join(err, stop())
}

// serveImages serves the demo images from a registry and returns the function that stops it.
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

// reference returns the name in the suite's registry of a demo image, such as "app:1".
func reference(image string) string { return suite.registry + "/demo/" + image }

// need skips the test if a tool is missing, and fails it in CI.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			unavailable(t, tool+" is missing: scripts/install-deps test")
		}
	}
}

// needNative skips the test if builders has no native builder.
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

// tool runs a program that must succeed and returns its output.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually waits until the condition holds. It fails the test if that takes longer than the limit.
func eventually(t *testing.T, limit time.Duration, condition string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if poll.Until(ctx, 5*time.Millisecond, func() (bool, error) { return holds(), nil }) != nil {
		t.Fatalf("%s: not within %v", condition, limit)
	}
}
