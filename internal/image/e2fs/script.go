package e2fs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// script is a file of debugfs commands, one per line.
type script struct {
	f     *os.File
	w     *bufio.Writer
	lines int
}

func (w *workspace) newScript() (*script, error) {
	f, err := w.root.OpenFile(scriptName, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write debugfs script: %w", err)
	}
	return &script{f: f, w: bufio.NewWriterSize(f, 1<<16)}, nil
}

// add appends a command. close returns the error if a write fails.
func (s *script) add(format string, args ...any) {
	fmt.Fprintf(s.w, format, args...)
	s.w.WriteByte('\n')
	s.lines++
}

func (s *script) close() error {
	if err := errors.Join(s.w.Flush(), s.f.Close()); err != nil {
		return fmt.Errorf("write debugfs script: %w", err)
	}
	return nil
}

// A lineCheck handles one line that debugfs printed for command n, counted from
// 0. It returns an error if the line means that the command failed.
type lineCheck func(n int, line string) error

// wantSilence is the lineCheck of commands that print nothing unless they
// fail. It accepts an empty line, because rm prints one.
func wantSilence(_ int, line string) error {
	if line == "" {
		return nil
	}
	return toolError(line)
}

var errNotExecuted = errors.New("debugfs ended before it executed the command")

// runScript runs debugfs on a script that is closed. mode is "-w" for a script
// that writes, and absent otherwise. debugfs continues after an error and may
// still exit with 0, but it prints each command before it executes it. So
// every line of output belongs to a command, and a command has succeeded if
// only accepted lines follow it up to the next command or the end.
func (r *restorer) runScript(ctx context.Context, s *script, check lineCheck, mode ...string) (err error) {
	if s.lines == 0 {
		return nil
	}
	stdin, err := r.work.root.Open(scriptName)
	if err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	defer stdin.Close()
	commands, err := r.work.root.Open(scriptName)
	if err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	defer commands.Close()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	env := []string{"DEBUGFS_PAGER=__none__", fakeTime(r.created)}
	cmd := r.work.command(ctx, env, r.debugfs, append(mode, "-f", "-", diskName)...)
	cmd.Stdin = stdin
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	if err := checkOutput(bufio.NewReader(commands), s.lines, out, check); err != nil {
		cancel()
		_ = cmd.Wait() // debugfs was killed, and err has the cause
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	return nil
}

// checkOutput reads the output of debugfs and compares it with its script of
// that many lines. It returns an error unless debugfs executed all commands
// and check accepts the lines that they printed.
func checkOutput(commands *bufio.Reader, lines int, out io.Reader, check lineCheck) error {
	const echo, longest = "debugfs: ", 1 << 20
	at, command := -1, "open disk"
	next, err := readCommand(commands)
	if err != nil {
		return err
	}
	scanner := bufio.NewScanner(out)
	scanner.Buffer(nil, longest)
	for scanner.Scan() {
		line := scanner.Text()
		if at+1 < lines && strings.HasPrefix(line, echo) && line[len(echo):] == next {
			at, command = at+1, next
			if next, err = readCommand(commands); err != nil {
				return err
			}
			continue
		}
		if at < 0 && isBanner(line) {
			continue
		}
		checkLine := check
		if at < 0 {
			checkLine = wantSilence
		}
		if err := checkLine(at, line); err != nil {
			return fmt.Errorf("debugfs command %q: %w", command, err)
		}
	}
	if err := scanner.Err(); err != nil {
		return fmt.Errorf("read output of debugfs: %w", err)
	}
	if at+1 < lines {
		return fmt.Errorf("debugfs command %q: %w", next, errNotExecuted)
	}
	return nil
}

// isBanner reports whether line is the first line of debugfs's output, which
// has its version.
func isBanner(line string) bool {
	var major, minor int
	n, err := fmt.Sscanf(line, "debugfs %d.%d", &major, &minor)
	return n == 2 && err == nil
}

// readCommand returns the next line of a script, or "" at its end.
func readCommand(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read debugfs script: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}
