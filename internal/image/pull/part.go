package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"
)

// part is the content of a blob from the offset start up to the offset end.
type part struct {
	io.ReadCloser
	from       *endpoint
	start, end int64
	waited     time.Duration // for the server's answer
}

// rangeError reports a response to a request with a range that is not of use.
type rangeError struct{ text string }

func (e *rangeError) Error() string { return e.text }

// fetch requests a blob from offset on, without retries. If no server has a useful
// answer to a request with a range, fetch sends one without. The part then starts at
// 0. It may end before the blob.
func (r *registry) fetch(ctx context.Context, b blob, offset int64) (*part, error) {
	p, err := r.fetchPart(ctx, b, offset)
	if offset > 0 && isRangeFault(err) {
		r.notice(fmt.Sprintf("layer %s: %v: starting again without a range", b.digest, classify(err)))
		p, err = r.fetchPart(ctx, b, 0)
	}
	return p, err
}

// isRangeFault reports whether a request without a range may succeed after err.
func isRangeFault(err error) bool {
	if _, ok := errors.AsType[*rangeError](err); ok {
		return true
	}
	e, ok := errors.AsType[*statusError](err)
	return ok && slices.Contains([]int{
		http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable, http.StatusPreconditionFailed,
		http.StatusRequestedRangeNotSatisfiable, http.StatusExpectationFailed, http.StatusNotImplemented,
	}, e.status)
}

func (r *registry) fetchPart(ctx context.Context, b blob, offset int64) (p *part, err error) {
	q := request{"blobs", string(b.digest), http.Header{}, []int{http.StatusOK}}
	if offset > 0 {
		q.header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		q.want = append(q.want, http.StatusPartialContent)
	}
	err = r.get(ctx, q, func(e *endpoint, resp *http.Response) error {
		p = &part{ReadCloser: resp.Body, from: e, end: b.size}
		if resp.StatusCode == http.StatusPartialContent {
			if err := p.setRange(resp.Header.Get("Content-Range"), offset, b.size); err != nil {
				return e.named(err)
			}
		}
		if n := p.end - p.start; resp.ContentLength >= 0 && resp.ContentLength != n {
			return e.named(&contentError{fmt.Errorf("server sends %d bytes, want %d", resp.ContentLength, n)})
		}
		if body, ok := resp.Body.(*timeoutBody); ok {
			body.whole.Stop() // the download has a meter
			p.waited = body.waited
		}
		return nil
	})
	return p, err
}

// setRange sets the range of the part from a Content-Range header (RFC 9110,
// section 14.4). It returns an error if the range does not have the byte at offset.
func (p *part) setRange(header string, offset, size int64) error {
	var first, last int64
	var total string
	if _, err := fmt.Sscanf(header, "bytes %d-%d/%s", &first, &last, &total); err != nil {
		return &rangeError{fmt.Sprintf("server sends the invalid range %q", printable(header))}
	}
	if first < 0 || first > offset || last < offset || last >= size || total != "*" && total != fmt.Sprint(size) {
		return &rangeError{fmt.Sprintf("server sends the range %q, want bytes %d-%d/%d", printable(header), offset, size-1, size)}
	}
	p.start, p.end = first, last+1
	return nil
}
