package machine

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/banger-vm/banger/api"
)

// Logs passes a machine's log lines to emit, the oldest first. The error of
// emit ends it. Where the image's init is all that runs, its console is the
// output.
func (s *Store) Logs(ctx context.Context, id string, o LogOptions, emit func(api.LogLine) error) error {
	rec, err := readRecord(s.dataDir(id))
	if err != nil {
		return err
	}
	name := CommandLog
	if o.Console || rec.Plan.Main == nil {
		name = ConsoleLog
	}
	r := &logReader{path: filepath.Join(s.dataDir(id), name), options: o, emit: emit}
	defer r.close()
	if err := r.skipToTail(ctx); err != nil {
		return err
	}
	for {
		ended := !o.Follow || !s.running(id) // before the last look
		if err := r.read(ctx); err != nil {
			if errors.Is(err, errPastUntil) {
				return nil
			}
			return err
		}
		if ended {
			return nil
		}
		const every = 100 * time.Millisecond
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
	}
}

// errPastUntil says that a line is later than those that are wanted.
var errPastUntil = errors.New("past the end asked for")

// A logReader reads a log's two files in their order, and goes on where they
// grow and are replaced.
type logReader struct {
	path    string
	options LogOptions
	emit    func(api.LogLine) error

	skip  int      // lines before those of Tail
	file  *os.File // nil: to be opened, the older one first where fresh
	fresh bool     // the older file has been read, or is not wanted
	lines *bufio.Reader
	part  []byte // of a line that has not been written whole yet
}

// skipToTail counts the lines that come before those that are wanted.
func (r *logReader) skipToTail(ctx context.Context) error {
	if r.options.Tail < 0 {
		return nil
	}
	lines := 0
	count := &logReader{path: r.path, options: LogOptions{Since: r.options.Since, Until: r.options.Until, Tail: -1},
		emit: func(l api.LogLine) error {
			if endsLine(l.Data) {
				lines++
			}
			return nil
		}}
	defer count.close()
	if err := count.read(ctx); err != nil && !errors.Is(err, errPastUntil) {
		return err
	}
	r.skip = max(0, lines-r.options.Tail)
	return nil
}

// read passes on all that is there.
func (r *logReader) read(ctx context.Context) error {
	for {
		if err := r.open(); err != nil || r.file == nil {
			return err
		}
		if err := r.toEnd(ctx); err != nil {
			return err
		}
		replaced, err := r.replaced()
		if err != nil || !replaced {
			return err
		}
		// What the writer added between the last read and the exchange.
		if err := r.toEnd(ctx); err != nil {
			return err
		}
		r.close()
	}
}

// open leaves file nil where there is no log yet.
func (r *logReader) open() error {
	if r.file != nil {
		return nil
	}
	path := r.path
	if !r.fresh {
		path += olderSuffix
	}
	r.fresh = true
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		if path != r.path {
			return r.open()
		}
		return nil
	}
	if err != nil {
		return err
	}
	r.file, r.lines, r.part = f, bufio.NewReader(f), nil
	return nil
}

// replaced reports whether the file that is open is not the current one.
func (r *logReader) replaced() (bool, error) {
	mine, err := r.file.Stat()
	if err != nil {
		return false, err
	}
	current, err := os.Stat(r.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && !os.SameFile(mine, current), err
}

func (r *logReader) toEnd(ctx context.Context) error {
	for ctx.Err() == nil {
		text, err := r.lines.ReadBytes('\n')
		r.part = append(r.part, text...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		line, err := decodeLine(r.part)
		r.part = r.part[:0]
		if err != nil { // the host went down while it was written
			line = api.LogLine{Stream: "stderr", Data: []byte("banger: a damaged line of this log is left out\n")}
		}
		if err := r.pass(line); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (r *logReader) pass(line api.LogLine) error {
	switch o := &r.options; {
	case line.Time.Before(o.Since) && !line.Time.IsZero():
		return nil
	case !o.Until.IsZero() && line.Time.After(o.Until):
		return errPastUntil
	case r.skip > 0:
		if endsLine(line.Data) {
			r.skip--
		}
		return nil
	}
	return r.emit(line)
}

func (r *logReader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}
