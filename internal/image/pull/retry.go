package pull

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

const (
	defaultRetries    = 5
	defaultRetryDelay = 500 * time.Millisecond
	maxRetryDelay     = 30 * time.Second
	// maxRetryAfter is how long a server may make us wait for one retry.
	maxRetryAfter = 2 * time.Minute
	// enoughProgress in bytes shows that a connection works again.
	enoughProgress = 1 << 20
)

// retrier counts the failures in a row of one piece of work.
type retrier struct {
	retries int           // allowed in a row
	delay   time.Duration // before the first retry, doubled for each further one
	dial    bool          // also when no connection could be made
	notice  func(string)

	failed int
	gained int64
}

// progress forgets the failures when enough bytes came since the last.
func (r *retrier) progress(n int) {
	if r.gained += int64(n); r.gained >= enoughProgress {
		r.failed = 0
	}
}

// wait returns nil when it is time to try again after err, else the error to
// give up with.
func (r *retrier) wait(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !r.worthwhile(err) || r.failed >= r.retries {
		return classify(err)
	}
	delay := min(r.delay<<r.failed, maxRetryDelay)
	if e, ok := errors.AsType[*statusError](err); ok && e.after > delay {
		if e.after > maxRetryAfter {
			return fmt.Errorf("%w (try again in %v)", classify(err), e.after.Round(time.Second))
		}
		delay = e.after
	}
	r.failed++
	r.gained = 0
	r.notice(fmt.Sprintf("%s: %v: trying again in %v", what, classify(err), delay))
	return sleep(ctx, delay)
}

func (r *retrier) worthwhile(err error) bool {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.temporary()
	}
	return isNetwork(err) && !errors.Is(err, http.ErrSchemeMismatch) && (r.dial || !isDial(err))
}

// sleep waits for d or until ctx ends, and says which by its error.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// retryAfter reads the header of RFC 9110, section 10.2.3, in either form.
func retryAfter(value string) time.Duration {
	if n, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(n, 0), 1<<30)) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}
