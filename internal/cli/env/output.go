package env

import (
	"errors"
	"io"
	"io/fs"
	"sync"
)

// An Output is standard output. It keeps the first error of a write, so that a command
// that prints with package fmt need not look at it.
type Output struct {
	to io.Writer

	mu  sync.Mutex
	err error
}

// NewOutput returns the output that writes to w.
func NewOutput(w io.Writer) *Output { return &Output{to: w} }

// Write implements io.Writer. The error is an *OutputError.
func (o *Output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	if err == nil {
		return n, nil
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		err = file.Err // without the name, which need not be the user's: /dev/stdout
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	err = &OutputError{err}
	if o.err == nil {
		o.err = err
	}
	return n, err
}

// Err returns the first error of a write, or nil.
func (o *Output) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// An OutputError reports that standard output takes no more.
type OutputError struct{ Err error }

func (e *OutputError) Error() string { return "standard output: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OutputError) Unwrap() error { return e.Err }
