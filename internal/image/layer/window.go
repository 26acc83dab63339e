package layer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/banger-vm/banger/internal/image/tree"
)

// Limits on the window of a zstd frame, in bytes. The decoder of a layer keeps as
// much of the layer's data in memory.
const (
	DefaultWindow = 512 << 20 // as containers/image accepts
	MaxWindow     = 2 << 30   // of zstd(1), --long=31

	// commonWindow is the largest window that zstd(1) reads without --long or
	// --memory. Layers with larger ones are rare.
	commonWindow = 128 << 20
)

// Windows limits the windows of the layers of an image. Layers unpack in parallel,
// so it also makes sure that only one of them has a window above 128 MiB at a time.
type Windows struct {
	limit int64
	wide  chan struct{} // holds a value while a layer has a large window
}

// NewWindows returns a limit of that many bytes, of DefaultWindow if limit is not
// positive, and of MaxWindow if it is larger.
func NewWindows(limit int64) *Windows {
	if limit <= 0 {
		limit = DefaultWindow
	}
	return &Windows{limit: min(limit, MaxWindow), wide: make(chan struct{}, 1)}
}

// open returns a reader of the zstd stream in r. If the window is large, open waits
// for other layers with large windows.
func (w *Windows) open(ctx context.Context, r *bufio.Reader) (io.ReadCloser, error) {
	z := &zstdFrames{limit: min(w.limit, commonWindow), release: func() {}}
	if isWide(r) && w.limit > commonWindow {
		select {
		case w.wide <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		z.limit, z.release = w.limit, func() { <-w.wide }
	}
	var err error
	z.d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(uint64(z.limit)))
	if err != nil {
		z.release()
		return nil, fmt.Errorf("read zstd header: %w", err)
	}
	return z, nil
}

// isWide reports whether the first frame of a zstd stream has a large window, or
// may be followed by such a frame because it is one to skip.
func isWide(r *bufio.Reader) bool {
	start, err := r.Peek(zstd.HeaderMaxSize)
	var h zstd.Header
	if err != nil && len(start) == 0 || h.Decode(start) != nil {
		return false // the decoder returns the error
	}
	return h.Skippable || h.WindowSize > commonWindow || h.SingleSegment && h.FrameContentSize > commonWindow
}

// zstdFrames reads the frames of a zstd stream.
type zstdFrames struct {
	d       *zstd.Decoder
	limit   int64
	release func()
}

func (z *zstdFrames) Read(p []byte) (int, error) {
	n, err := z.d.Read(p)
	switch {
	case errors.Is(err, zstd.ErrMagicMismatch): // decompress has checked the magic number of the first frame
		err = errTrailing
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		err = &tree.LimitError{What: "bytes in the window of a zstd frame", Limit: z.limit, Option: "--max-window"}
	}
	return n, err
}

// Close stops the decoder.
func (z *zstdFrames) Close() error {
	z.d.Close()
	z.release()
	return nil
}
