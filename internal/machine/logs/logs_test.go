package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/banger-vm/banger/api"
)

// collect returns the lines of the log at path, each with its stream.
func collect(t *testing.T, path string, o Options) string {
	t.Helper()
	var out strings.Builder
	err := Read(t.Context(), path, o, func(l api.LogLine) error {
		fmt.Fprintf(&out, "%s:%s", l.Stream, l.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestLogs(t *testing.T) {
	dir := t.TempDir()
	if got := collect(t, filepath.Join(dir, Command), Options{Tail: -1}); got != "" {
		t.Errorf("a machine that has not run has a log: %q", got)
	}
	l, err := Open(filepath.Join(dir, Command), CommandSize)
	if err != nil {
		t.Fatal(err)
	}
	second := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, text := range []string{"one\ntwo\n", "thr", "ee\n", "\xff\xfe\n", "no end"} {
		l.add(second.Add(time.Duration(i)*time.Second), "stdout", []byte(text))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	console, err := Open(filepath.Join(dir, Console), ConsoleSize)
	if err != nil {
		t.Fatal(err)
	}
	console.add(second, StreamConsole, []byte("booted\r\n"))
	if err := console.Close(); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		options Options
		want    string
	}{
		{"all", Options{Tail: -1}, "stdout:one\nstdout:two\nstdout:three\nstdout:\xff\xfe\nstdout:no end"},
		{"none", Options{Tail: 0}, ""},
		{"the last two", Options{Tail: 2}, "stdout:\xff\xfe\nstdout:no end"},
		{"more than the log has", Options{Tail: 9}, "stdout:one\nstdout:two\nstdout:three\nstdout:\xff\xfe\nstdout:no end"},
		{"since", Options{Tail: -1, Since: second.Add(3 * time.Second)}, "stdout:\xff\xfe\nstdout:no end"},
		{"until", Options{Tail: -1, Until: second}, "stdout:one\nstdout:two\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if got := collect(t, filepath.Join(dir, Command), row.options); got != row.want {
				t.Errorf("logs = %q, want %q", got, row.want)
			}
		})
	}
	if got := collect(t, filepath.Join(dir, Console), Options{Tail: -1}); got != "console:booted\r\n" {
		t.Errorf("console log = %q", got)
	}
}

func TestLogIsBounded(t *testing.T) {
	dir := t.TempDir()
	const limit = 4 << 10
	l, err := Open(filepath.Join(dir, Command), limit)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		fmt.Fprintf(l.Stream("stdout"), "line %d\n", i)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{Command, Command + olderSuffix} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() > limit {
			t.Errorf("%s: %v, %v; want at most %d bytes", name, info, err, limit)
		}
	}
	// Both files are read, in their order, and nothing is missing between them.
	lines := strings.Split(strings.TrimSuffix(collect(t, filepath.Join(dir, Command), Options{Tail: -1}), "\n"), "\n")
	if len(lines) < 50 || lines[len(lines)-1] != "stdout:line 999" {
		t.Fatalf("%d lines, the last is %q", len(lines), lines[len(lines)-1])
	}
	for i := range lines {
		if want := fmt.Sprintf("stdout:line %d", 1000-len(lines)+i); lines[i] != want {
			t.Fatalf("line %q, want %q", lines[i], want)
		}
	}
}

// TestLogAfterKill reads a log with the part of a line that a killed writer leaves,
// and the zeros that a crash of the host leaves in the place of a line.
func TestLogAfterKill(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Command)
	whole, err := encodeLine(time.Now(), "stdout", []byte("whole\n"))
	if err != nil {
		t.Fatal(err)
	}
	content := slices.Concat(whole, []byte("\x00\x00\x00\n"), whole, []byte(`{"t":"2026`))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(path, CommandSize)
	if err != nil {
		t.Fatal(err)
	}
	l.add(time.Now(), "stderr", []byte("next\n"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	want := "stdout:whole\nstderr:banger: a damaged line of this log is left out\nstdout:whole\nstderr:next\n"
	if got := collect(t, filepath.Join(dir, Command), Options{Tail: -1}); got != want {
		t.Errorf("logs = %q, want %q", got, want)
	}
}

// TestLogOfFullDisk checks that the log reports the size of the lost output when
// there is space again.
func TestLogOfFullDisk(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, Command)
	l, err := Open(path, CommandSize)
	if err != nil {
		t.Fatal(err)
	}
	l.add(time.Now(), "stdout", []byte("before\n"))
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	disk := l.file
	l.file = full
	l.add(time.Now(), "stdout", []byte("lost\n"))
	l.file = disk
	l.add(time.Now(), "stdout", []byte("after\n"))
	if err := errors.Join(l.Close(), full.Close()); err != nil {
		t.Fatal(err)
	}
	want := "stdout:before\nstderr:banger: 5 bytes of output could not be logged\nstdout:after\n"
	if got := collect(t, filepath.Join(dir, Command), Options{Tail: -1}); got != want {
		t.Errorf("logs = %q, want %q", got, want)
	}
}

// TestLongLine checks that a line longer than maxData is read back whole, and that
// Options.Tail counts it once.
func TestLongLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), Command)
	l, err := Open(path, CommandSize)
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 2*maxData+1) + "\n"
	for _, text := range []string{"before\n", long[:maxData-1], long[maxData-1:], "after\n"} {
		l.add(time.Now(), StreamStdout, []byte(text))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for tail, want := range map[int]string{-1: "before\n" + long + "after\n", 2: long + "after\n", 1: "after\n"} {
		if got := strings.ReplaceAll(collect(t, path, Options{Tail: tail}), "stdout:", ""); got != want {
			t.Errorf("the last %d lines have %d bytes, want %d", tail, len(got), len(want))
		}
	}
}

// TestLogsFollow reads a log while it is written, until Options.More returns false.
func TestLogsFollow(t *testing.T) {
	dir := t.TempDir()
	var running atomic.Bool
	running.Store(true)
	const limit = 1 << 10
	path := filepath.Join(dir, Command)
	l, err := Open(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var got bytes.Buffer
	first := make(chan struct{})
	done := make(chan error, 1)
	l.add(time.Now(), "stdout", []byte("line 0\n"))
	go func() {
		done <- Read(ctx, path, Options{Tail: -1, More: running.Load}, func(line api.LogLine) error {
			if got.Len() == 0 {
				close(first)
			}
			got.Write(line.Data)
			return nil
		})
	}()
	<-first
	l.add(time.Now(), "stdout", []byte("line 1\n"))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	running.Store(false)
	if err := <-done; err != nil || got.String() != "line 0\nline 1\n" {
		t.Errorf("followed %q, %v", &got, err)
	}
}

// TestLogsAsOfRequest checks that the lines of a log that grows while it is read
// are those of the request: none that is written later, also after the writer has
// begun another file.
func TestLogsAsOfRequest(t *testing.T) {
	for _, row := range []struct {
		name  string
		tail  int
		limit int64 // of one file, in bytes
		more  int   // lines that are written for each line that is read
		want  string
	}{
		{"all", -1, CommandSize, 3, "line 0\nline 1\nline 2\nline 3\nline 4\n"},
		{"the last one", 1, CommandSize, 3, "line 4\n"},
		{"the last three, and the writer replaces both files", 3, 256, 50, "line 2\nline 3\nline 4\n"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), Command)
			l, err := Open(path, row.limit)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			for i := range 5 {
				fmt.Fprintf(l.Stream(StreamStdout), "line %d\n", i)
			}
			var got strings.Builder
			err = Read(t.Context(), path, Options{Tail: row.tail}, func(line api.LogLine) error {
				got.Write(line.Data)
				for range row.more {
					fmt.Fprintln(l.Stream(StreamStdout), "later")
				}
				return nil
			})
			if err != nil || got.String() != row.want {
				t.Errorf("logs %q, %v; want %q", got.String()[:min(200, got.Len())], err, row.want)
			}
		})
	}
}
