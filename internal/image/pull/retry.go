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
	defaultMinRate    = 1 << 10
	defaultRetryDelay = 500 * time.Millisecond
	maxRetryDelay     = 30 * time.Second
	// maxRetryAfter is the longest Retry-After of a server that wait accepts.
	maxRetryAfter = 2 * time.Minute
)

// retrier counts the consecutive failures of one task, and waits before each
// retry.
type retrier struct {
	retries   int           // maximum number of consecutive ones
	delay     time.Duration // before the first retry, doubled for each further one
	retryDial bool          // retry also if connecting fails
	notice    func(string)

	failures  int  // consecutive
	refetched bool // after a *contentError
	slow      bool // there was a *slowError
}

// progress resets the count of failures. The caller calls it after it has received
// bytes that it did not have yet.
func (r *retrier) progress() { r.failures = 0 }

// wait waits until the time of the next attempt after err. It returns an error
// without waiting if a retry cannot help or if there were too many. task is
// its name in the notice.
func (r *retrier) wait(ctx context.Context, task string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if !r.isRetryable(err) || r.failures >= r.retries {
		return classify(err)
	}
	delay := min(r.delay<<r.failures, maxRetryDelay)
	if e, ok := errors.AsType[*statusError](err); ok && e.retryAfter > delay {
		if e.retryAfter > maxRetryAfter {
			return fmt.Errorf("%w (try again in %v)", classify(err), e.retryAfter.Round(time.Second))
		}
		delay = e.retryAfter
	}
	r.failures++
	r.refetched = r.refetched || isContent(err)
	r.slow = r.slow || isSlow(err)
	r.notice(fmt.Sprintf("%s: %v: trying again in %v", task, classify(err), delay))
	return sleep(ctx, delay)
}

func (r *retrier) isRetryable(err error) bool {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.temporary()
	}
	if isContent(err) {
		return !r.refetched
	}
	if isSlow(err) {
		return !r.slow
	}
	return isNetwork(err) && !errors.Is(err, http.ErrSchemeMismatch) && (r.retryDial || !isDial(err))
}

func isContent(err error) bool {
	_, ok := errors.AsType[*contentError](err)
	return ok
}

// sleep waits for d. If ctx ends earlier, it returns the context's error.
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

// retryAfter parses a Retry-After header (RFC 9110, section 10.2.3), which is a
// number of seconds or a date. It returns 0 if the header is invalid.
func retryAfter(value string) time.Duration {
	if n, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(n, 0), 1<<30)) * time.Second
	}
	if t, err := http.ParseTime(value); err == nil {
		return max(time.Until(t), 0)
	}
	return 0
}
