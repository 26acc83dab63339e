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

// Read calls emit with the lines of the log at path, the oldest first, until
// the log does not grow any more. It returns the error of emit.
func Read(ctx context.Context, path string, o Options, emit func(api.LogLine) error) error {
	r := &reader{path: path, options: o, emit: emit}
	defer r.close()
	if err := r.skipToTail(ctx); err != nil {
		return err
	}
	const interval = 100 * time.Millisecond
	return poll.Until(ctx, interval, func() (bool, error) {
		more := o.More != nil && o.More() // called before read, which then reads the last lines
		err := r.read(ctx)
		if errors.Is(err, errPastUntil) {
			return true, nil
		}
		return !more, err
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
	file  *os.File // nil: open the next file
	fresh bool     // the older file has been read
	lines *bufio.Reader
	part  []byte // the start of a line that is not written completely yet
}

// skipToTail counts the lines that precede the last Options.Tail lines.
func (r *reader) skipToTail(ctx context.Context) error {
	if r.options.Tail < 0 {
		return nil
	}
	lines := 0
	count := &reader{path: r.path, options: Options{Since: r.options.Since, Until: r.options.Until, Tail: -1},
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

// read emits all lines that the files have now.
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

// open opens the next file. r.file stays nil if there is none yet.
func (r *reader) open() error {
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
