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

// resolveTar makes an image of one layer from the tar of a root file system.
// A tar says nothing of its platform: it is what was wanted.
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
		layer.open = once(in)
	}
	img.Layers = []Layer{layer}
	return img, ctx.Err()
}

// once opens a pipe, which has its bytes only once.
func once(in *input) func(context.Context) (io.ReadCloser, error) {
	var used atomic.Bool
	return func(ctx context.Context) (io.ReadCloser, error) {
		if used.Swap(true) {
			return nil, errors.New("a pipe can be read only once")
		}
		return io.NopCloser(in.reader(ctx)), nil
	}
}

// input is a file or pipe that the user names.
type input struct {
	io.Reader
	file *os.File // nil for a Reader that is no file
	size int64    // of a regular file, else -1
	own  bool     // file is to be closed
}

// openInput opens the path; "-" is standard input.
func openInput(path string, o Options) (*input, error) {
	if path == standardInput {
		if o.Stdin == nil {
			return nil, errors.New("there is no standard input")
		}
		f, _ := o.Stdin.(*os.File)
		return &input{Reader: o.Stdin, file: f, size: -1}, nil
	}
	// Without O_NONBLOCK, open(2) of a fifo waits for its writer.
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
	in := &input{Reader: f, file: f, size: -1, own: true}
	if info.Mode().IsRegular() {
		in.size = info.Size()
	}
	return in, nil
}

// withoutPath drops the path of an error whose reader is told of it anyway.
func withoutPath(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// Close implements io.Closer.
func (in *input) Close() error {
	if !in.own {
		return nil
	}
	return in.file.Close()
}

// reader reads from the start of a pipe, or on from where a file stands, and
// ends with ctx also while nothing comes.
func (in *input) reader(ctx context.Context) io.Reader {
	if in.file == nil || in.size >= 0 {
		return withContext(ctx, in.Reader)
	}
	return &contextReader{in.Reader, func() error { return waitReadable(ctx, in.file) }}
}

const pollMillis = 100

// waitReadable returns when a read of f would not block. A read that has
// begun cannot be interrupted.
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
