// Package logs keeps a machine's output in files of bounded size and reads it
// back. It knows nothing of the machine that writes.
package logs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/banger-vm/banger/api"
)

// Log files in a machine's data folder. A full file is renamed, with
// olderSuffix appended, and replaces the one before it.
const (
	Console     = "console.log" // the output of the machine's console
	Command     = "command.log" // the outputs of the main command
	olderSuffix = ".1"
)

// Sizes in bytes.
const (
	ConsoleSize = 1 << 20  // of one console log file, at most
	CommandSize = 8 << 20  // of one command log file, at most
	maxData     = 16 << 10 // of one line; a longer one becomes several lines
)

// The streams of log lines.
const (
	StreamStdout  = "stdout"
	StreamStderr  = "stderr"
	StreamConsole = "console"
)

// A line is one line of a log file, encoded as JSON. Bytes holds data that is
// not UTF-8.
type line struct {
	Time   time.Time `json:"t"`
	Stream string    `json:"s"`
	Data   string    `json:"d,omitempty"`
	Bytes  []byte    `json:"b,omitempty"`
}

// encodeLine returns a line of a log file, with its newline.
func encodeLine(t time.Time, stream string, data []byte) ([]byte, error) {
	l := line{Time: t.UTC(), Stream: stream}
	if utf8.Valid(data) {
		l.Data = string(data)
	} else {
		l.Bytes = data
	}
	text, err := json.Marshal(l)
	return append(text, '\n'), err
}

func decodeLine(text []byte) (api.LogLine, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return api.LogLine{}, fmt.Errorf("read log line: %w", err)
	}
	data := l.Bytes
	if data == nil {
		data = []byte(l.Data)
	}
	return api.LogLine{Time: l.Time, Stream: l.Stream, Data: data}, nil
}

// A File keeps the last output in two files of bounded size. It never blocks
// its writer: it counts the output that it cannot write, for example because
// the disk is full, and writes the count to the log when there is room again.
type File struct {
	mu    sync.Mutex
	path  string
	limit int64 // bytes of one file
	file  *os.File
	size  int64
	lost  int64             // bytes of output that could not be written
	parts map[string][]byte // by stream: the start of a line whose end has not come
}

// Open opens the log at path to append to it. limit is the size of one file in
// bytes.
func Open(path string, limit int64) (*File, error) {
	l := &File{path: path, limit: limit, parts: map[string][]byte{}}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

// open opens the file at l.path and sets its size.
func (l *File) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size, err := wholeLines(l.path)
	if err == nil {
		err = f.Truncate(size) // drop the part of a line that a killed writer has left
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, size
	return nil
}

// endsLine reports whether the data of a log line is the end of a written line.
// If not, it is an earlier part of a long line.
func endsLine(data []byte) bool {
	return bytes.HasSuffix(data, []byte{'\n'}) || len(data) < maxData
}

// wholeLines returns the size of the file up to the end of its last line.
func wholeLines(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	const tail = 8 * maxData // more than any line: JSON may write a byte as six
	start := max(0, info.Size()-tail)
	text := make([]byte, info.Size()-start)
	if _, err := f.ReadAt(text, start); err != nil {
		return 0, err
	}
	return start + int64(bytes.LastIndexByte(text, '\n')+1), nil
}

// Stream returns a writer of one of the log's streams. Its Write never fails.
func (l *File) Stream(name string) Writer { return Writer{l, name} }

// A Writer writes one stream to a log.
type Writer struct {
	log  *File
	name string
}

// Write adds p to the log with the current time.
func (w Writer) Write(p []byte) (int, error) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.add(time.Now(), w.name, p) // the time under the lock, so that the lines are in its order
	return len(p), nil
}

// add writes the lines that p completes. The rest of p waits for the end of its
// line, as in docker's logs. The caller holds mu.
func (l *File) add(now time.Time, stream string, p []byte) {
	if l.lost > 0 {
		l.reportLost(now)
	}
	part := append(l.parts[stream], p...)
	for len(part) > 0 {
		n := bytes.IndexByte(part, '\n') + 1
		switch {
		case n > maxData || n == 0 && len(part) >= maxData:
			n = maxData
		case n == 0:
			l.parts[stream] = part
			return
		}
		l.put(now, stream, part[:n])
		part = part[n:]
	}
	delete(l.parts, stream)
}

// reportLost writes to the log how much output is missing, if there is room.
func (l *File) reportLost(now time.Time) {
	lost := l.lost
	l.lost = 0
	l.put(now, StreamStderr, fmt.Appendf(nil, "banger: %d bytes of output could not be logged\n", lost))
	if l.lost > 0 {
		l.lost = lost // there is no room yet
	}
}

// put writes one line whole or not at all.
func (l *File) put(now time.Time, stream string, data []byte) {
	text, err := encodeLine(now, stream, data)
	if err == nil && l.size+int64(len(text)) > l.limit {
		err = l.rotate()
	}
	if err == nil && l.file == nil {
		err = l.open()
	}
	if err == nil {
		_, err = l.file.WriteAt(text, l.size)
	}
	if err != nil {
		l.lost += int64(len(data))
		if l.file != nil {
			l.file.Truncate(l.size) //nolint:errcheck // the next line overwrites the part
		}
		return
	}
	l.size += int64(len(text))
}

// rotate replaces the older file by the full file and opens a new one.
func (l *File) rotate() error {
	var err error
	if l.file != nil {
		err = l.file.Close()
		l.file = nil
	}
	if moved := os.Rename(l.path, l.path+olderSuffix); !errors.Is(moved, fs.ErrNotExist) {
		err = errors.Join(err, moved)
	}
	return errors.Join(err, l.open())
}

// Close writes the lines whose ends have not come, and closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, stream := range slices.Sorted(maps.Keys(l.parts)) {
		l.put(time.Now(), stream, l.parts[stream])
	}
	clear(l.parts)
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	l.file = nil
	return err
}
