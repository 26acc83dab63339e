package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
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
	minRate    int64 // bytes per second of a download
	maxJSON    int64
	notice     func(string)
	blamed     sync.Map // has a suspect for each mirror that sent a wrong blob, and one without a mirror for each blob that was fetched again
}

// suspect is a blob that an endpoint sent with the wrong content.
type suspect struct {
	digest digest.Digest
	from   *endpoint // nil for the registry
}

func newRegistry(repo name.Repository, o Options) (*registry, error) {
	r := &registry{
		slots:      make(chan struct{}, cmp.Or(max(o.MaxConnections, 0), defaultConnections)),
		timeout:    cmp.Or(o.Timeout, defaultTimeout),
		retries:    cmp.Or(o.Retries, defaultRetries),
		retryDelay: cmp.Or(o.RetryDelay, defaultRetryDelay),
		minRate:    cmp.Or(max(o.MinRate, 0), defaultMinRate),
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

// request is a GET request for an object of the repository.
type request struct {
	kind       string // manifests or blobs
	identifier string // a tag or a digest
	header     http.Header
	want       []int // status codes
}

// get sends a request to each endpoint in turn until accept returns no error for
// the response of one. accept may keep the response's body, which it must then
// close. Mirrors that sent a wrong blob are not asked for it again. If all endpoints
// fail, the error is a *hostsError.
func (r *registry) get(ctx context.Context, q request, accept func(*endpoint, *http.Response) error) error {
	var failure hostsError
	for _, e := range r.endpoints {
		if !r.isLast(e) && (e.down.Load() || r.isBlamed(digest.Digest(q.identifier), e)) {
			continue
		}
		err := r.getFrom(ctx, e, q, accept)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		failure.add(err)
		if r.isLast(e) {
			break
		}
		err = classify(err)
		e.down.Store(errors.Is(err, ErrNetwork) || errors.Is(err, ErrUnauthorized) || errors.Is(err, ErrPlainHTTP))
		r.notice(fmt.Sprintf("mirror %s: %v", e.host, err))
	}
	if failure.answer != nil {
		r.notice(fmt.Sprintf("registry %s: %v", r.endpoints[len(r.endpoints)-1].host, classify(failure.last)))
	}
	return &failure
}

// isLast reports whether e is the registry itself.
func (r *registry) isLast(e *endpoint) bool { return e == r.endpoints[len(r.endpoints)-1] }

func (r *registry) isBlamed(d digest.Digest, e *endpoint) bool {
	_, ok := r.blamed.Load(suspect{d, e})
	return ok
}

// blame records that the endpoints sent a blob with the wrong content. It reports
// whether the blob is worth another request: one to the next endpoint, or one
// second request to the registry itself.
func (r *registry) blame(d digest.Digest, from []*endpoint) bool {
	another := false
	for _, e := range from {
		if !r.isLast(e) {
			r.blamed.Store(suspect{d, e}, nil)
			another = true
		}
	}
	if another {
		return true
	}
	_, again := r.blamed.LoadOrStore(suspect{d, nil}, nil)
	return !again
}

// getFrom sends a request to one endpoint, and repeats it after a challenge.
func (r *registry) getFrom(ctx context.Context, e *endpoint, q request, accept func(*endpoint, *http.Response) error) error {
	s, err := e.connect(ctx)
	if err != nil {
		return err
	}
	resp, err := r.send(ctx, s, e, q)
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusUnauthorized && e.gate.isOwn(serverOf(resp.Request.URL)) {
		next, err := e.renew(ctx, s, resp)
		if err != nil || next != s {
			resp.Body.Close()
		}
		if err != nil {
			return err
		}
		if next != s {
			s = next
			if resp, err = r.send(ctx, s, e, q); err != nil {
				return err
			}
		}
	}
	if err := checkStatus(resp, q.want...); err != nil {
		return e.refusal(err, s.known)
	}
	if err := accept(e, resp); err != nil {
		resp.Body.Close()
		return err
	}
	return nil
}

// send sends a request. It occupies one of the slots until the response's body is
// closed.
func (r *registry) send(ctx context.Context, s *session, e *endpoint, q request) (*http.Response, error) {
	req, err := e.request(ctx, q.kind, q.identifier)
	if err != nil {
		return nil, err
	}
	for key, values := range q.header {
		req.Header[key] = values
	}
	select {
	case r.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	return doWithTimeout(s.client, req, r.timeout, func() { <-r.slots })
}

// identifierDigest returns the digest in ref, or "" if ref has a tag.
func identifierDigest(ref name.Reference) digest.Digest {
	if _, ok := ref.(name.Digest); ok {
		return digest.Digest(strings.TrimSpace(ref.Identifier()))
	}
	return ""
}
