// Package jsonfile keeps a record in a JSON file. It bounds the size of a file that it
// reads, and replaces a file in one step. The caller checks the content of a record.
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

// Read decodes the file path into v. It returns an error if the file has more than
// limit bytes or is not a regular file, and fs.ErrNotExist if there is none.
func Read(path string, limit int64, v any) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // O_NONBLOCK: the open of a FIFO would wait for its writer
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

// Write replaces the file path by v as indented JSON. Only the file's owner can read it.
func Write(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return atomicfile.Write(path, append(data, '\n'), 0o600)
}
