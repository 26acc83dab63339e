package pull

import (
	"context"
	"io"
)

// contextReader calls check before each read, and returns its error.
type contextReader struct {
	io.Reader
	check func() error
}

// withContext returns a reader of r whose reads fail after ctx ends.
func withContext(ctx context.Context, r io.Reader) io.Reader {
	return &contextReader{r, func() error { return context.Cause(ctx) }}
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.check(); err != nil {
		return 0, err
	}
	return c.Reader.Read(p)
}

// contextFile is a file whose reads fail after a context ends.
type contextFile struct {
	io.Closer
	io.Reader
}
