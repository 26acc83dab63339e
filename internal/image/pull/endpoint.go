package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// endpoint is a server of the repository: the registry or one of its mirrors.
type endpoint struct {
	host     string   // to connect to, with the port if any
	repo     string   // on that host
	schemes  []string // in the order of the attempts
	gate     *gate
	keychain *keychain
	notice   func(string)

	timeout        time.Duration
	down           atomic.Bool           // this mirror failed; send it no more requests
	credentialsErr atomic.Pointer[error] // of reading the credentials, or nil

	connecting   chan struct{} // a mutex for the fields below; a wait ends with its context
	session      *session      // nil before the first connection
	scheme       string
	refreshToken string // of the token server, replaces the identity token; "" if there is none
}

// newEndpoint returns the endpoint at host, which may have a scheme and a path as
// in Options.Mirrors. If plain is set, the endpoint uses http.
func newEndpoint(host, repo string, plain bool) *endpoint {
	if rest, ok := strings.CutPrefix(host, "http://"); ok {
		host, plain = rest, true
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/")
	host, prefix, _ := strings.Cut(host, "/")
	if prefix != "" {
		repo = prefix + "/" + repo
	}
	e := &endpoint{host: host, repo: repo, connecting: make(chan struct{}, 1)}
	switch {
	case plain:
		e.schemes = []string{"http"}
	case isLoopback(hostname(host)):
		e.schemes = []string{"https", "http"}
	default:
		e.schemes = []string{"https"}
	}
	return e
}

// request returns a GET request for an object of the repository. kind is
// "manifests" or "blobs".
func (e *endpoint) request(ctx context.Context, kind, identifier string) (*http.Request, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", e.scheme, e.host, e.repo, kind, identifier)
	return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
}

// connect returns the endpoint's session. The first call finds the scheme and
// authenticates.
func (e *endpoint) connect(ctx context.Context) (*session, error) {
	unlock, err := e.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if e.session != nil {
		return e.session, nil
	}
	required, challenges, err := e.ping(ctx)
	if err != nil {
		return nil, err
	}
	s := e.newSession("", false)
	if required {
		for _, c := range challenges {
			delete(c.parameters, "scope") // it is not the repository's
		}
		if s, err = e.authenticate(ctx, s, challenges); err != nil {
			return nil, err
		}
	}
	e.session = s
	return s, nil
}

// renew returns the session to use after the endpoint has answered 401 to a request
// of the session old. Its token may have ended. Some servers also answer the version
// endpoint without authentication, and require it only for other requests. If there
// is nothing else to send, renew returns old.
func (e *endpoint) renew(ctx context.Context, old *session, resp *http.Response) (*session, error) {
	unlock, err := e.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if e.session != old {
		return e.session, nil // another request has done it
	}
	next, err := e.authenticate(ctx, old, parseChallenges(resp.Header.Values("WWW-Authenticate")))
	if err != nil {
		return nil, err
	}
	e.session = next
	return next, nil
}

func (e *endpoint) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case e.connecting <- struct{}{}:
		return func() { <-e.connecting }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ping requests the version endpoint with each of the schemes until one works. It
// reports whether the endpoint requires authentication, and by which challenges.
func (e *endpoint) ping(ctx context.Context) (required bool, _ []challenge, _ error) {
	var resp *http.Response
	var err error
	for _, e.scheme = range e.schemes {
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, e.scheme+"://"+e.host+"/v2/", nil)
		if err != nil {
			return false, nil, err
		}
		resp, err = doWithTimeout(e.newSession("", false).client, req, e.timeout, func() {})
		if err == nil || isCertificate(err) || isDial(err) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return false, nil, err
	}
	defer resp.Body.Close()
	// net/http reuses a connection only after its body is read to the end.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)); err != nil {
		return false, nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return true, parseChallenges(resp.Header.Values("WWW-Authenticate")), nil
	}
	return false, nil, temporaryStatus(resp)
}

// temporaryStatus returns an error if the status of the version endpoint is
// temporary. It ignores all other statuses, because the next request returns a
// more precise error.
func temporaryStatus(resp *http.Response) error {
	if e := newStatusError(resp); e.temporary() {
		return e
	}
	return nil
}

// refusal classifies err. If the server refused the request and the credentials
// could not be read, it adds that error. known reports whether the user's
// credentials were sent.
func (e *endpoint) refusal(err error, known bool) error {
	if err = classify(err); !errors.Is(err, ErrUnauthorized) {
		return err
	}
	if reason := e.credentialsErr.Load(); reason != nil {
		return fmt.Errorf("%w (%w)", err, *reason)
	}
	if !known {
		return &anonymousError{err}
	}
	return err
}
