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

// script is a file of debugfs commands, one a line.
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

// add appends a command. Errors of the file come up in close.
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

// A reply judges one line that debugfs put out for command n, counted from 0.
type reply func(n int, said string) error

// refuse is the reply to commands that say nothing unless they fail; rm does
// put out an empty line.
func refuse(_ int, said string) error {
	if said == "" {
		return nil
	}
	return toolError(said)
}

var errSilent = errors.New("debugfs ended before it got there")

// runScript has debugfs execute a script that is closed. mode is "-w" for
// one that writes and "" otherwise. debugfs goes on after an error and may
// exit with 0 all the same, but it repeats each command before it executes
// it; so every line it puts out belongs to a command, and a command is done
// only once the next one, or the end, follows without a complaint.
func (r *restorer) runScript(ctx context.Context, s *script, reply reply, mode ...string) (err error) {
	if s.lines == 0 {
		return nil
	}
	stdin, err := r.work.root.Open(scriptName)
	if err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	defer stdin.Close()
	again, err := r.work.root.Open(scriptName)
	if err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	defer again.Close()

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
	if err := follow(bufio.NewReader(again), s.lines, out, reply); err != nil {
		cancel()
		_ = cmd.Wait() // killed, since its output is wrong already
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run debugfs: %w", err)
	}
	return nil
}

// follow reads what debugfs puts out beside the script it was given.
func follow(commands *bufio.Reader, lines int, out io.Reader, reply reply) error {
	const echo, longest = "debugfs: ", 1 << 20
	at, command := -1, "open disk"
	next, err := readCommand(commands)
	if err != nil {
		return err
	}
	said := bufio.NewScanner(out)
	said.Buffer(nil, longest)
	for said.Scan() {
		line := said.Text()
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
		judge := reply
		if at < 0 {
			judge = refuse
		}
		if err := judge(at, line); err != nil {
			return fmt.Errorf("debugfs command %q: %w", command, err)
		}
	}
	if err := said.Err(); err != nil {
		return fmt.Errorf("read output of debugfs: %w", err)
	}
	if at+1 < lines {
		return fmt.Errorf("debugfs command %q: %w", next, errSilent)
	}
	return nil
}

// isBanner recognises the line with its version that debugfs begins with.
func isBanner(line string) bool {
	var major, minor int
	n, _ := fmt.Sscanf(line, "debugfs %d.%d", &major, &minor) // n says it all
	return n == 2
}

// readCommand returns the next line of a script, "" at its end.
func readCommand(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read debugfs script: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}
