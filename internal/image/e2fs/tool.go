package e2fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// A MissingToolError names a program that is not installed.
type MissingToolError struct{ Name string }

func (e *MissingToolError) Error() string { return "find program " + e.Name + ": not installed" }

// tools are the absolute paths of the programs.
type tools struct{ mkfs, debugfs string }

func findTools(dir string) (tools, error) {
	mkfs, err := findTool(dir, "mkfs.ext4")
	if err != nil {
		return tools{}, err
	}
	debugfs, err := findTool(dir, "debugfs")
	return tools{mkfs, debugfs}, err
}

// findTool looks for name in dir, or where "" is given in $PATH and then in
// the folders that the $PATH of a plain user lacks.
func findTool(dir, name string) (string, error) {
	dirs := []string{dir}
	if dir == "" {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
		dirs = []string{"/usr/sbin", "/sbin", "/usr/local/sbin"}
	}
	for _, d := range dirs {
		abs, err := filepath.Abs(d)
		if err != nil {
			return "", err
		}
		if path, err := exec.LookPath(filepath.Join(abs, name)); err == nil {
			return path, nil
		}
	}
	return "", &MissingToolError{Name: name}
}

// command prepares a program that runs in the workspace. It dies with ctx
// and, should this process be killed, with it: what would be left of it could
// write to files that belong to somebody else by then.
func (w *workspace) command(ctx context.Context, env []string, program string, args ...string) *exec.Cmd {
	const grace = 5 * time.Second // for its pipes, once it is dead
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = w.path
	// The messages are read, so they must not come translated.
	cmd.Env = append([]string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	return cmd
}

// toolError is what a program said when it failed. These programs give the
// errors of the host as text only, so that of a full disk is looked for.
func toolError(said string) error {
	err := errors.New(strings.Join(strings.Fields(said), " "))
	if strings.Contains(strings.ToLower(said), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w: %w", err, syscall.ENOSPC)
	}
	return err
}

// head keeps the first bytes that are written to it.
type head struct{ kept []byte }

func (h *head) Write(p []byte) (int, error) {
	const limit = 1000
	h.kept = append(h.kept, p[:min(len(p), limit-len(h.kept))]...)
	return len(p), nil
}
