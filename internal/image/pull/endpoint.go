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

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// endpoint is a server of the repository: the registry or one of its mirrors.
type endpoint struct {
	host     string   // to connect to, with the port if any
	repo     string   // on that host
	schemes  []string // in the order of the attempts
	base     http.RoundTripper
	keychain *keychain
	notice   func(string)

	timeout time.Duration
	down    atomic.Bool // this mirror failed; send it no more requests

	connecting     chan struct{} // a mutex for the fields below; a wait ends with its context
	client         *http.Client  // nil before the first connection
	scheme         string
	authenticated  bool  // the client authenticates
	credentialsErr error // error of reading the credentials
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

// connect returns the endpoint's client. The first call finds the scheme and
// authenticates.
func (e *endpoint) connect(ctx context.Context) (*http.Client, error) {
	return e.ensureClient(ctx, func() (*transport.Challenge, error) {
		if e.client != nil {
			return nil, nil
		}
		return e.ping(ctx)
	})
}

// answerChallenge authenticates by the challenge in a response, and returns the
// new client. Some servers answer the version endpoint without authentication,
// and send a challenge only for other requests.
func (e *endpoint) answerChallenge(ctx context.Context, resp *http.Response) (*http.Client, error) {
	c := parseChallenge(resp.Header.Values("WWW-Authenticate"), resp.Request.URL.Scheme == "http")
	return e.ensureClient(ctx, func() (*transport.Challenge, error) {
		if e.authenticated {
			return nil, nil // another request has done it
		}
		return c, nil
	})
}

// ensureClient creates the client for the challenge that find returns. If the
// challenge is nil and there is a client, it returns that client. Only one
// goroutine at a time runs find.
func (e *endpoint) ensureClient(ctx context.Context, find func() (*transport.Challenge, error)) (*http.Client, error) {
	select {
	case e.connecting <- struct{}{}:
		defer func() { <-e.connecting }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	challenge, err := find()
	if err != nil {
		return nil, err
	}
	if challenge == nil && e.client != nil {
		return e.client, nil
	}
	rt, err := e.authTransport(ctx, challenge)
	if err != nil {
		return nil, err
	}
	e.authenticated = challenge != nil
	e.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	return e.client, nil
}

// ping requests the version endpoint with each of the schemes until one works. It
// returns the challenge in the response, or nil if there is none.
func (e *endpoint) ping(ctx context.Context) (*transport.Challenge, error) {
	var resp *http.Response
	var err error
	for _, e.scheme = range e.schemes {
		var req *http.Request
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, e.scheme+"://"+e.host+"/v2/", nil)
		if err != nil {
			return nil, err
		}
		client := &http.Client{Transport: e.base, CheckRedirect: checkRedirect}
		if resp, err = doWithTimeout(client, req, e.timeout, func() {}); err == nil || isCertificate(err) || isDial(err) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	// net/http reuses a connection only after its body is read to the end.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return parseChallenge(resp.Header.Values("WWW-Authenticate"), e.scheme == "http"), nil
	}
	return nil, temporaryStatus(resp)
}

// temporaryStatus returns an error if the status of the version endpoint is
// temporary. It ignores all other statuses, because the next request returns a
// more precise error.
func temporaryStatus(resp *http.Response) error {
	e := &statusError{status: resp.StatusCode, retryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	if e.temporary() {
		return e
	}
	return nil
}

// authTransport returns a transport that adds credentials to requests to this
// endpoint, and to no other host. If challenge is nil, it adds none.
func (e *endpoint) authTransport(ctx context.Context, challenge *transport.Challenge) (http.RoundTripper, error) {
	if challenge == nil {
		return e.base, nil
	}
	reg, err := name.NewRegistry(e.host, name.Insecure)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %s", printable(e.host), printable(err.Error()))
	}
	credentials, err := e.keychain.lookup(ctx, e.host, e.repo)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e.credentialsErr = err
		e.notice(fmt.Sprintf("%v: continuing without credentials", err))
	}
	auth := authn.Anonymous
	if credentials != (authn.AuthConfig{}) {
		auth = authn.FromConfig(credentials)
	}
	token := &transport.Token{Token: credentials.RegistryToken}
	if strings.EqualFold(challenge.Scheme, "bearer") && token.Token == "" {
		ctx, cancel := context.WithTimeoutCause(ctx, e.timeout, errStalled)
		defer cancel()
		scopes := []string{"repository:" + e.repo + ":pull"}
		if token, err = transport.Exchange(ctx, reg, auth, e.base, scopes, challenge); err != nil {
			return nil, e.withCredentialsErr(err)
		}
		if token.Token == "" {
			token.Token = token.AccessToken
		}
	}
	return transport.FromToken(reg, auth, e.base, challenge, token)
}

// withCredentialsErr classifies err. If the server refused the request and the
// credentials could not be read, it adds that error.
func (e *endpoint) withCredentialsErr(err error) error {
	if err = classify(err); e.credentialsErr != nil && errors.Is(err, ErrUnauthorized) {
		return fmt.Errorf("%w (%w)", err, e.credentialsErr)
	}
	return err
}

// maxChallenge is the maximum length in bytes of a WWW-Authenticate header.
const maxChallenge = 8 << 10

// parseChallenge parses WWW-Authenticate headers (RFC 9110, section 11.6.1). It
// returns the first bearer or basic challenge. If there is none, it returns a
// basic challenge without parameters.
func parseChallenge(headers []string, insecure bool) *transport.Challenge {
	for _, h := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		if len(h) <= maxChallenge && (strings.EqualFold(scheme, "bearer") || strings.EqualFold(scheme, "basic")) {
			return &transport.Challenge{Scheme: scheme, Parameters: parseParameters(rest), Insecure: insecure}
		}
	}
	return &transport.Challenge{Scheme: "basic", Insecure: insecure}
}

// parseParameters parses a list of name=token and name="quoted string", separated
// by commas.
func parseParameters(s string) map[string]string {
	out := map[string]string{}
	for {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return out
		}
		key = strings.ToLower(strings.Trim(key, " \t,"))
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, s = parseQuoted(rest[1:])
		} else {
			value, s, _ = strings.Cut(rest, ",")
			value = strings.TrimSpace(value)
		}
		if key != "" {
			out[key] = value
		}
	}
}

// parseQuoted returns the string up to its closing quote, without backslashes,
// and the text after the quote.
func parseQuoted(s string) (value, rest string) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			if i++; i == len(s) {
				return b.String(), ""
			}
		}
		b.WriteByte(s[i])
	}
	return b.String(), ""
}
