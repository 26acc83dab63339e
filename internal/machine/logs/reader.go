package logs

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/banger-vm/banger/api"
	"github.com/banger-vm/banger/internal/base/poll"
)

// Options select the lines of a log.
type Options struct {
	Since time.Time
	Until time.Time
	Tail  int         // only the last lines; negative: all
	More  func() bool // reports whether the log may still grow; nil: it does not
}

// Read calls emit with the lines that the log at path has when Read is called,
// the oldest first. With Options.More it goes on with the lines that are written
// later, until the log does not grow any more. It returns the error of emit.
func Read(ctx context.Context, path string, o Options, emit func(api.LogLine) error) error {
	r := &reader{path: path, options: o, emit: emit}
	defer r.close()
	err := r.readSnapshot(ctx)
	if err == nil && o.More != nil {
		err = r.follow(ctx)
	}
	if errors.Is(err, errPastUntil) {
		return nil
	}
	return err
}

// follow emits the lines that are added to the log.
func (r *reader) follow(ctx context.Context) error {
	const interval = 100 * time.Millisecond
	return poll.Until(ctx, interval, func() (bool, error) {
		more := r.options.More() // called before read, which then reads the last lines
		return !more, r.read(ctx)
	})
}

// errPastUntil reports a line that is later than Options.Until.
var errPastUntil = errors.New("past the requested end")

// A reader reads a log's two files in their order. It follows the log when the
// files grow and when they are replaced.
type reader struct {
	path    string
	options Options
	emit    func(api.LogLine) error

	skip  int      // lines to skip because of Options.Tail
	file  *os.File // nil: open the file at path
	lines *bufio.Reader
	part  []byte // the start of a line that is not written completely yet
}

// readSnapshot emits the lines that the log has now. It keeps the current file
// open behind them.
func (r *reader) readSnapshot(ctx context.Context) error {
	files, err := openFiles(r.path)
	if err != nil || len(files) == 0 {
		return err
	}
	r.file = files[len(files)-1]
	for _, f := range files[:len(files)-1] {
		defer f.Close()
	}
	info, err := r.file.Stat()
	if err != nil {
		return err
	}
	if err := r.skipToTail(ctx, files, info.Size()); err != nil {
		return err
	}
	if err := r.readFiles(ctx, files, info.Size()); err != nil {
		return err
	}
	r.lines = bufio.NewReader(r.file)
	return nil
}

// openFiles opens the files of a log that exist, the older one first.
func openFiles(path string) ([]*os.File, error) {
	for {
		current, err := openFile(path)
		if err != nil {
			return nil, err
		}
		older, err := openFile(path + olderSuffix)
		switch {
		case err != nil:
			return nil, errors.Join(err, closeFile(current))
		case older == nil && current == nil:
			return nil, nil
		case older == nil:
			return []*os.File{current}, nil
		case current == nil: // the writer is about to begin another file
			return []*os.File{older}, nil
		}
		// If the writer has replaced the file meanwhile, the older file is the one
		// that was the current one a moment ago.
		replaced, err := isSameFile(older, current)
		if err == nil && !replaced {
			return []*os.File{older, current}, nil
		}
		if err := errors.Join(err, older.Close(), current.Close()); err != nil {
			return nil, err
		}
	}
}

func closeFile(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// openFile opens a file. It returns nil if the file does not exist.
func openFile(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return f, err
}

func isSameFile(a, b *os.File) (bool, error) {
	x, err := a.Stat()
	if err != nil {
		return false, err
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y), err
}

// readFiles emits the lines of files, from the last one only those in its first
// size bytes. It leaves the last file behind them.
func (r *reader) readFiles(ctx context.Context, files []*os.File, size int64) error {
	for i, f := range files {
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		var from io.Reader = f
		if i == len(files)-1 {
			from = io.LimitReader(f, size)
		}
		r.lines, r.part = bufio.NewReader(from), nil
		if err := r.toEnd(ctx); err != nil {
			return err
		}
	}
	return nil
}

// skipToTail counts the lines of files that precede the last Options.Tail lines.
func (r *reader) skipToTail(ctx context.Context, files []*os.File, size int64) error {
	if r.options.Tail < 0 {
		return nil
	}
	lines := 0
	count := &reader{options: Options{Since: r.options.Since, Until: r.options.Until}, emit: func(l api.LogLine) error {
		if endsLine(l.Data) {
			lines++
		}
		return nil
	}}
	if err := count.readFiles(ctx, files, size); err != nil && !errors.Is(err, errPastUntil) {
		return err
	}
	r.skip = max(0, lines-r.options.Tail)
	return nil
}

// read emits the lines that were added since the last call.
func (r *reader) read(ctx context.Context) error {
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
		// Read the lines that the writer added before it replaced the file.
		if err := r.toEnd(ctx); err != nil {
			return err
		}
		r.close()
	}
}

// open opens the current file, unless one is open. r.file stays nil if there is
// none yet.
func (r *reader) open() error {
	if r.file != nil {
		return nil
	}
	f, err := openFile(r.path)
	if err != nil || f == nil {
		return err
	}
	r.file, r.lines, r.part = f, bufio.NewReader(f), nil
	return nil
}

// replaced reports whether the writer has begun another file.
func (r *reader) replaced() (bool, error) {
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

// toEnd emits the lines up to the end of the open file.
func (r *reader) toEnd(ctx context.Context) error {
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
		if err != nil { // the host crashed during the write
			line = api.LogLine{Stream: StreamStderr, Data: []byte("banger: a damaged line of this log is left out\n")}
		}
		if err := r.pass(line); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// pass emits a line if the options select it. It returns errPastUntil if the line is
// later than Options.Until.
func (r *reader) pass(line api.LogLine) error {
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

func (r *reader) close() {
	if r.file != nil {
		r.file.Close()
		r.file = nil
	}
}
