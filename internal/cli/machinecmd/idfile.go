package machinecmd

import (
	"errors"
	"fmt"
	"os"
)

// An idFile is the file of --idfile, from which a program reads the ID of its new
// machine. The methods of a nil idFile do nothing.
type idFile struct {
	file    *os.File
	written bool
}

// openIDFile creates the file, or returns nil if name is "". It is called before
// the machine is created: if the file cannot be created, there is no machine whose
// ID is lost.
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

// write writes the ID.
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

// close closes the file, and removes it if no ID was written.
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
