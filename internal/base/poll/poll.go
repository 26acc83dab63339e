// Package poll waits for a condition that gives no notice when it changes, such
// as a lock of another process or a device that the kernel is about to make.
package poll

import (
	"context"
	"time"
)

// Until calls done at once and then at the given interval, until it reports true
// or returns an error, or until ctx ends. It returns nil, the error of done, or
// the cause of ctx's end.
func Until(ctx context.Context, interval time.Duration, done func() (bool, error)) error {
	return Backoff(ctx, interval, interval, done)
}

// Backoff is Until with an interval that doubles from first to longest. It suits a
// condition that usually comes true soon and may take long.
func Backoff(ctx context.Context, first, longest time.Duration, done func() (bool, error)) error {
	var timer *time.Timer
	for interval := first; ; interval = min(2*interval, longest) {
		if ok, err := done(); ok || err != nil {
			return err
		}
		if timer == nil {
			timer = time.NewTimer(interval)
			defer timer.Stop()
		} else {
			timer.Reset(interval)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
		}
	}
}
