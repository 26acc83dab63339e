package machine

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

// Log files in a machine's data folder. Of each there is the one before it
// too, with olderSuffix.
const (
	ConsoleLog  = "console.log" // what the machine wrote to its console
	CommandLog  = "command.log" // the main command's outputs
	olderSuffix = ".1"
)

// Bounds of one file in bytes.
const (
	consoleLogSize = 1 << 20
	commandLogSize = 8 << 20
	maxLogData     = 16 << 10 // of one line; a longer one becomes several
)

// Streams of log lines, besides those of a command.
const streamConsole = "console"

// A logLine is one line of a log file, as JSON. Data that is not UTF-8 is in
// Bytes.
type logLine struct {
	Time   time.Time `json:"t"`
	Stream string    `json:"s"`
	Data   string    `json:"d,omitempty"`
	Bytes  []byte    `json:"b,omitempty"`
}

func encodeLine(t time.Time, stream string, data []byte) ([]byte, error) {
	line := logLine{Time: t.UTC(), Stream: stream}
	if utf8.Valid(data) {
		line.Data = string(data)
	} else {
		line.Bytes = data
	}
	text, err := json.Marshal(line)
	return append(text, '\n'), err
}

func decodeLine(text []byte) (api.LogLine, error) {
	var line logLine
	if err := json.Unmarshal(text, &line); err != nil {
		return api.LogLine{}, fmt.Errorf("read log line: %w", err)
	}
	data := line.Bytes
	if data == nil {
		data = []byte(line.Data)
	}
	return api.LogLine{Time: line.Time, Stream: line.Stream, Data: data}, nil
}

// A logFile keeps the last output in two files of bounded size. Output that
// cannot be written, as on a full disk, is counted and told of in the log once
// there is room again; it does not hold the writer up.
type logFile struct {
	mu    sync.Mutex
	path  string
	limit int64 // bytes of one file
	file  *os.File
	size  int64
	lost  int64             // bytes of output that could not be written
	parts map[string][]byte // by stream: of a line that is not whole yet
}

// openLog goes on with the log at path.
func openLog(path string, limit int64) (*logFile, error) {
	l := &logFile{path: path, limit: limit, parts: map[string][]byte{}}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return l, nil
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	size, err := wholeLines(l.path)
	if err == nil {
		err = f.Truncate(size) // a killed writer may have left a part of a line
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.file, l.size = f, size
	return nil
}

// endsLine reports whether the data of a log line have the end of the line
// that was written, and not a part of a long one.
func endsLine(data []byte) bool {
	return bytes.HasSuffix(data, []byte{'\n'}) || len(data) < maxLogData
}

// wholeLines is the size of the file up to the end of its last line.
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
	const tail = 8 * maxLogData // more than any line: JSON may write a byte as six
	start := max(0, info.Size()-tail)
	text := make([]byte, info.Size()-start)
	if _, err := f.ReadAt(text, start); err != nil {
		return 0, err
	}
	return start + int64(bytes.LastIndexByte(text, '\n')+1), nil
}

// stream returns a writer of one of the log's streams. Its Write never fails.
func (l *logFile) stream(name string) logWriter { return logWriter{l, name} }

type logWriter struct {
	log  *logFile
	name string
}

func (w logWriter) Write(p []byte) (int, error) {
	w.log.add(time.Now(), w.name, p)
	return len(p), nil
}

// add writes the lines of the log that p makes whole. What is left waits for
// the end of its line, as docker has it.
func (l *logFile) add(now time.Time, stream string, p []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost > 0 {
		l.confess(now)
	}
	part := append(l.parts[stream], p...)
	for len(part) > 0 {
		n := bytes.IndexByte(part, '\n') + 1
		switch {
		case n > maxLogData || n == 0 && len(part) >= maxLogData:
			n = maxLogData
		case n == 0:
			l.parts[stream] = part
			return
		}
		l.put(now, stream, part[:n])
		part = part[n:]
	}
	delete(l.parts, stream)
}

// confess says how much is missing, where there is room to say so.
func (l *logFile) confess(now time.Time) {
	lost := l.lost
	l.lost = 0
	l.put(now, "stderr", fmt.Appendf(nil, "banger: %d bytes of output could not be logged\n", lost))
	if l.lost > 0 {
		l.lost = lost // not yet
	}
}

// put writes one line whole or not at all.
func (l *logFile) put(now time.Time, stream string, data []byte) {
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
			l.file.Truncate(l.size) //nolint:errcheck // the next line is written over it
		}
		return
	}
	l.size += int64(len(text))
}

func (l *logFile) rotate() error {
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

func (l *logFile) close() error {
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
