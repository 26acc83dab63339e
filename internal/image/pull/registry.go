package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/banger-vm/banger/internal/base/digest"
)

// acceptManifests is the Accept header of a request for a manifest. It does not
// have schema 1. A registry that has no other manifest sends schema 1 anyway, and
// parseDocument returns an error for it.
const acceptManifests = typeOCIIndex + "," + typeDockerList + "," + typeOCIManifest + "," + typeDockerManifest

const defaultConnections = 4

// registry reads one repository from its mirrors and from the registry itself.
type registry struct {
	endpoints  []*endpoint   // in the order of the attempts; the registry is the last
	slots      chan struct{} // holds one value for each running request
	timeout    time.Duration
	retries    int
	retryDelay time.Duration
	maxJSON    int64
	notice     func(string)
}

func newRegistry(repo name.Repository, o Options) (*registry, error) {
	r := &registry{
		slots:      make(chan struct{}, cmp.Or(max(o.MaxConnections, 0), defaultConnections)),
		timeout:    cmp.Or(o.Timeout, defaultTimeout),
		retries:    cmp.Or(o.Retries, defaultRetries),
		retryDelay: cmp.Or(o.RetryDelay, defaultRetryDelay),
		maxJSON:    o.maxJSON(),
		notice:     o.notice,
	}
	tlsConfig, err := newTLSConfig(o.CACert)
	if err != nil {
		return nil, err
	}
	for _, m := range o.Mirrors[host(repo)] {
		r.endpoints = append(r.endpoints, newEndpoint(m, repo.RepositoryStr(), false))
	}
	r.endpoints = append(r.endpoints, newEndpoint(repo.RegistryStr(), repo.RepositoryStr(), o.PlainHTTP))
	keys := &keychain{}
	for _, e := range r.endpoints {
		e.keychain, e.notice, e.timeout = keys, o.notice, r.timeout
		// A transport of its own: a connection that one endpoint may use must not serve another.
		e.gate = newGate(e.host, newTransport(tlsConfig, r.timeout), host(repo), o.AllowAddresses)
	}
	return r, nil
}

func (r *registry) close() {
	for _, e := range r.endpoints {
		e.gate.transport.CloseIdleConnections()
	}
}

func (r *registry) retrier() *retrier {
	return &retrier{retries: r.retries, delay: r.retryDelay, notice: r.notice}
}

// get sends a request to each endpoint in turn until a response has a wanted
// status. If all fail, it returns the error of the last endpoint, which is the
// registry itself. The caller closes the response's body.
func (r *registry) get(ctx context.Context, kind, identifier string, header http.Header, want ...int) (*http.Response, error) {
	for i, e := range r.endpoints {
		if e.down.Load() {
			continue
		}
		resp, err := r.getFrom(ctx, e, kind, identifier, header, want)
		if err == nil {
			return resp, nil
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if i == len(r.endpoints)-1 {
			return nil, err
		}
		err = classify(err)
		e.down.Store(errors.Is(err, ErrNetwork) || errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrPlainHTTP))
		r.notice(fmt.Sprintf("mirror %s: %v", e.host, err))
	}
	return nil, errors.New("no registry to ask")
}

// getFrom sends a request to one endpoint, and repeats it after a challenge.
func (r *registry) getFrom(ctx context.Context, e *endpoint, kind, identifier string, header http.Header, want []int) (*http.Response, error) {
	s, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := r.send(ctx, s, e, kind, identifier, header)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && e.gate.isOwn(serverOf(resp.Request.URL)) {
		next, err := e.renew(ctx, s, resp)
		if err != nil {
			resp.Body.Close()
			return nil, err
		}
		if next != s {
			resp.Body.Close()
			s = next
			resp, err = r.send(ctx, s, e, kind, identifier, header)
		}
		if err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if err := checkStatus(resp, want...); err != nil {
		return nil, e.refusal(err, s.known)
	}
	return resp, nil
}

// send sends a request. It occupies one of the slots until the response's body is
// closed.
func (r *registry) send(ctx context.Context, s *session, e *endpoint, kind, identifier string, header http.Header) (*http.Response, error) {
	req, err := e.request(ctx, kind, identifier)
	if err != nil {
		return nil, err
	}
	for key, values := range header {
		req.Header[key] = values
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return doWithTimeout(s.client, req, r.timeout, func() { <-r.slots })
}

// manifest fetches a manifest or index by tag or digest.
func (r *registry) manifest(ctx context.Context, identifier string) (data []byte, mediaType string, err error) {
	retry := r.retrier()
	for {
		data, mediaType, err = r.manifestOnce(ctx, identifier)
		if err == nil {
			return data, mediaType, nil
		}
		if err := retry.wait(ctx, "manifest "+identifier, err); err != nil {
			return nil, "", err
		}
	}
}

func (r *registry) manifestOnce(ctx context.Context, identifier string) ([]byte, string, error) {
	resp, err := r.get(ctx, "manifests", identifier, http.Header{"Accept": {acceptManifests}}, http.StatusOK)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	data, err := readAll(resp.Body, r.maxJSON)
	if int64(len(data)) > r.maxJSON {
		err = &LimitError{"document is too large", r.maxJSON, "limits.json"}
	}
	if err != nil {
		return nil, "", fmt.Errorf("read manifest: %w", err)
	}
	return data, resp.Header.Get("Content-Type"), nil
}

// blobBytes fetches all of a blob that is a document.
func (r *registry) blobBytes(ctx context.Context, b blob) ([]byte, error) {
	if b.size > r.maxJSON {
		return nil, tooLarge("document "+string(b.digest), b.size, r.maxJSON)
	}
	retry := r.retrier()
	for {
		data, err := r.blobBytesOnce(ctx, b)
		if err == nil {
			return data, verifyBytes(data, b)
		}
		if err := retry.wait(ctx, string(b.digest), err); err != nil {
			return nil, err
		}
	}
}

func (r *registry) blobBytesOnce(ctx context.Context, b blob) ([]byte, error) {
	p, err := r.fetch(ctx, b, 0)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	return readAll(p, b.size)
}

// part is the content of a blob from the offset start to its end.
type part struct {
	io.ReadCloser
	start int64
}

// fetch requests a blob from offset on, without retries. If the server ignores
// or refuses ranges, the part starts at 0.
func (r *registry) fetch(ctx context.Context, b blob, offset int64) (*part, error) {
	header := http.Header{}
	want := []int{http.StatusOK}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", offset))
		want = append(want, http.StatusPartialContent)
	}
	resp, err := r.get(ctx, "blobs", string(b.digest), header, want...)
	if e, ok := errors.AsType[*statusError](err); ok && e.rangeRefused && offset > 0 {
		offset = 0
		resp, err = r.get(ctx, "blobs", string(b.digest), http.Header{}, http.StatusOK)
	}
	if err != nil {
		return nil, err
	}
	p := &part{ReadCloser: resp.Body}
	if resp.StatusCode == http.StatusPartialContent {
		p.start = offset
		err = checkRange(resp.Header.Get("Content-Range"), offset, b.size)
	}
	if rest := b.size - p.start; err == nil && resp.ContentLength >= 0 && resp.ContentLength != rest {
		err = fmt.Errorf("server sends %d bytes, want %d", resp.ContentLength, rest)
	}
	if err != nil {
		resp.Body.Close()
		return nil, err
	}
	return p, nil
}

// checkRange returns an error if a Content-Range header (RFC 9110, section 14.4)
// is not the range from offset to the end of the blob.
func checkRange(header string, offset, size int64) error {
	var first, last int64
	var total string
	if _, err := fmt.Sscanf(header, "bytes %d-%d/%s", &first, &last, &total); err != nil {
		return fmt.Errorf("server sends the invalid range %q", printable(header))
	}
	if first != offset || last != size-1 || total != "*" && total != fmt.Sprint(size) {
		return fmt.Errorf("server sends the range %q, want bytes %d-%d/%d", printable(header), offset, size-1, size)
	}
	return nil
}

// verifyBytes returns an error if a document does not have the size and the
// digest of its descriptor.
func verifyBytes(data []byte, b blob) error {
	if int64(len(data)) != b.size {
		return fmt.Errorf("document %s has %d bytes, want %d", b.digest, len(data), b.size)
	}
	if got := digest.FromBytes(data); got != b.digest {
		return fmt.Errorf("document %s has the digest %s", b.digest, got)
	}
	return nil
}

// identifierDigest returns the digest in ref, or "" if ref has a tag.
func identifierDigest(ref name.Reference) digest.Digest {
	if _, ok := ref.(name.Digest); ok {
		return digest.Digest(strings.TrimSpace(ref.Identifier()))
	}
	return ""
}
