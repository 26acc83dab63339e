package machinecmd

import (
	"errors"
	"fmt"
	"os"
)

// An idFile is where a program looks for the ID of the machine that it has
// made. Its methods do nothing on nil.
type idFile struct {
	file    *os.File
	written bool
}

// openIDFile makes the file before the machine, so that no machine is made
// whose ID nobody learns.
func openIDFile(name string) (*idFile, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fmt.Errorf("make ID file: %w", err)
	}
	return &idFile{file: f}, nil
}

// write tells the ID.
func (i *idFile) write(id string) error {
	if i == nil {
		return nil
	}
	if _, err := i.file.WriteString(id); err != nil {
		return fmt.Errorf("write ID file: %w", err)
	}
	i.written = true
	return nil
}

// close removes the file where no ID was written.
func (i *idFile) close() error {
	if i == nil {
		return nil
	}
	err := i.file.Close()
	if !i.written {
		err = errors.Join(err, os.Remove(i.file.Name()))
	}
	if err != nil {
		return fmt.Errorf("close ID file: %w", err)
	}
	return nil
}
