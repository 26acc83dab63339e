package pull

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sys/unix"
)

// resolveTar returns an image with one layer, the tar of a root file system. A tar
// has no platform, so the image has the wanted one.
func resolveTar(ctx context.Context, s source, want platform, o Options) (*Image, error) {
	img := &Image{Name: fileName(s.path, ""), Platform: want.String()}
	img.Config = v1.ConfigFile{OS: want.os, Architecture: want.arch, Variant: want.variant, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}}
	var err error
	if img.RawConfig, err = json.Marshal(img.Config); err != nil {
		return nil, fmt.Errorf("make image configuration: %w", err)
	}
	in, err := openInput(s.path, o)
	if err != nil {
		return nil, err
	}
	img.close = in.Close
	layer := Layer{size: in.size}
	if in.size >= 0 {
		layer.open = func(ctx context.Context) (io.ReadCloser, error) {
			return io.NopCloser(withContext(ctx, io.NewSectionReader(in.file, 0, in.size))), nil
		}
	} else {
		layer.open = openOnce(in)
	}
	img.Layers = []Layer{layer}
	return img, ctx.Err()
}

// openOnce returns an open function for a pipe, which can be read only once. Its
// second call returns an error.
func openOnce(in *input) func(context.Context) (io.ReadCloser, error) {
	var used atomic.Bool
	return func(ctx context.Context) (io.ReadCloser, error) {
		if used.Swap(true) {
			return nil, errors.New("a pipe can be read only once")
		}
		return io.NopCloser(in.reader(ctx)), nil
	}
}

// input is a file or a pipe that the user has named.
type input struct {
	io.Reader
	file  *os.File // nil if Reader is not a file
	size  int64    // in bytes of a regular file, else -1
	owned bool     // Close closes file
}

// openInput opens the file at path. If path is "-", it returns standard input.
func openInput(path string, o Options) (*input, error) {
	if path == standardInput {
		if o.Stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		f, _ := o.Stdin.(*os.File)
		return &input{Reader: o.Stdin, file: f, size: -1}, nil
	}
	// Without O_NONBLOCK, open(2) of a fifo blocks until there is a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutPath(err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = errors.New("is a folder")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	in := &input{Reader: f, file: f, size: -1, owned: true}
	if info.Mode().IsRegular() {
		in.size = info.Size()
	}
	return in, nil
}

// withoutPath returns err without the path of a file, for errors whose prefix
// already has it.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// Close implements io.Closer.
func (in *input) Close() error {
	if !in.owned {
		return nil
	}
	return in.file.Close()
}

// reader returns a reader of the rest of the input. Its reads fail after ctx ends,
// even while a pipe has no data.
func (in *input) reader(ctx context.Context) io.Reader {
	if in.file == nil || in.size >= 0 {
		return withContext(ctx, in.Reader)
	}
	return &contextReader{in.Reader, func() error { return waitReadable(ctx, in.file) }}
}

// pollMillis is the interval in milliseconds at which waitReadable checks its
// context.
const pollMillis = 100

// waitReadable waits until a read of f does not block, or until ctx ends. A
// context cannot interrupt a read that has started.
func waitReadable(ctx context.Context, f *os.File) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, pollMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 {
			return nil
		}
	}
}
