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

// A MissingToolError is the error for a program that is not installed.
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

// findTool returns the path of the program name in dir. If dir is "", it
// searches $PATH, and then the folders that the $PATH of a plain user lacks.
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

// command returns the command of a program that runs in the workspace. The
// program and its children are killed when ctx ends, and the program when this
// process dies. A surviving program could write to files that belong to
// another process by then.
func (w *workspace) command(ctx context.Context, env []string, program string, args ...string) *exec.Cmd {
	const grace = 5 * time.Second // for its pipes after its death
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = w.path
	// This package parses the messages, so they must not be translated.
	cmd.Env = append([]string{"LC_ALL=C", "TZ=UTC", "PATH=" + os.Getenv("PATH")}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = grace
	return cmd
}

// toolError returns an error with the output of a program that failed. The
// programs print errors of the host only as text, so toolError searches the
// text for a full disk, and then also wraps syscall.ENOSPC.
func toolError(output string) error {
	err := errors.New(strings.Join(strings.Fields(output), " "))
	if strings.Contains(strings.ToLower(output), syscall.ENOSPC.Error()) {
		return fmt.Errorf("%w: %w", err, syscall.ENOSPC)
	}
	return err
}

// headBuffer keeps the first bytes that are written to it.
type headBuffer struct{ kept []byte }

func (h *headBuffer) Write(p []byte) (int, error) {
	const limit = 1000
	h.kept = append(h.kept, p[:min(len(p), limit-len(h.kept))]...)
	return len(p), nil
}
