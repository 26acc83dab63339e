// Package jsonfile keeps a record as one JSON file: read within a bound, and
// written whole or not at all. What is in a record, and which one may be
// trusted, is its owner's business.
package jsonfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/banger-vm/banger/internal/base/atomicfile"
)

// Read decodes the file path into v, unless it has more than limit bytes. The
// error of a file that is not there is fs.ErrNotExist.
func Read(path string, limit int64, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // the open of a FIFO would wait for its writer
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return err
	}
	if int64(len(data)) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	return json.Unmarshal(data, v)
}

// Write publishes v, indented, as the file path, which only its user may
// read.
func Write(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}
