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

// endpoint is one server that has the repository: the registry or a mirror.
type endpoint struct {
	host    string   // as dialled, with the port if any
	repo    string   // on that host
	schemes []string // in the order to try
	base    http.RoundTripper
	keys    *keychain
	notice  func(string)

	timeout time.Duration
	down    atomic.Bool // a mirror that is not worth asking again

	turn       chan struct{} // held while connecting; guards what follows
	client     *http.Client  // nil before the first connection
	scheme     string
	challenged bool  // the client authenticates
	trouble    error // why credentials could not be read
}

// newEndpoint takes a host as in Options.Mirrors, with an optional scheme and
// path.
func newEndpoint(host, repo string, plain bool) *endpoint {
	if rest, ok := strings.CutPrefix(host, "http://"); ok {
		host, plain = rest, true
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/")
	host, prefix, _ := strings.Cut(host, "/")
	if prefix != "" {
		repo = prefix + "/" + repo
	}
	e := &endpoint{host: host, repo: repo, turn: make(chan struct{}, 1)}
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

// request is a GET for something of the repository.
func (e *endpoint) request(ctx context.Context, kind, identifier string) (*http.Request, error) {
	url := fmt.Sprintf("%s://%s/v2/%s/%s/%s", e.scheme, e.host, e.repo, kind, identifier)
	return http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
}

// connect finds the scheme and authenticates, once.
func (e *endpoint) connect(ctx context.Context) (*http.Client, error) {
	return e.connected(ctx, func() (*transport.Challenge, error) {
		if e.client != nil {
			return nil, nil
		}
		return e.ping(ctx)
	})
}

// challenge authenticates as the answer of a request demands. Some servers
// let the version endpoint pass and only then ask for credentials.
func (e *endpoint) challenge(ctx context.Context, resp *http.Response) (*http.Client, error) {
	c := parseChallenge(resp.Header.Values("WWW-Authenticate"), resp.Request.URL.Scheme == "http")
	return e.connected(ctx, func() (*transport.Challenge, error) {
		if e.challenged {
			return nil, nil // by another request meanwhile
		}
		return c, nil
	})
}

// connected makes the client for what find returns, or keeps the one that is
// there where that is nil. One goroutine at a time does so.
func (e *endpoint) connected(ctx context.Context, find func() (*transport.Challenge, error)) (*http.Client, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
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
	rt, err := e.authenticate(ctx, challenge)
	if err != nil {
		return nil, err
	}
	e.challenged = challenge != nil
	e.client = &http.Client{Transport: rt, CheckRedirect: checkRedirect}
	return e.client, nil
}

// ping asks for the version endpoint and returns the authentication that it
// wants, nil for none.
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
		if resp, err = watch(client, req, e.timeout, func() {}); err == nil || isCertificate(err) || isDial(err) || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	// Reading to the end lets the connection be used again.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxErrorBody)); err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return parseChallenge(resp.Header.Values("WWW-Authenticate"), e.scheme == "http"), nil
	}
	return nil, temporaryStatus(resp)
}

// temporaryStatus lets any answer of the version endpoint pass but those
// that ask to come again: the request itself will show what is wrong.
func temporaryStatus(resp *http.Response) error {
	e := &statusError{status: resp.StatusCode, after: retryAfter(resp.Header.Get("Retry-After"))}
	if e.temporary() {
		return e
	}
	return nil
}

// authenticate makes what adds credentials to requests for this endpoint,
// and to no other host.
func (e *endpoint) authenticate(ctx context.Context, challenge *transport.Challenge) (http.RoundTripper, error) {
	if challenge == nil {
		return e.base, nil
	}
	reg, err := name.NewRegistry(e.host, name.Insecure)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %s", clean(e.host), clean(err.Error()))
	}
	credentials, err := e.keys.lookup(ctx, e.host, e.repo)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		e.trouble = err
		e.notice(fmt.Sprintf("%v: going on without credentials", err))
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
			return nil, e.withTrouble(err)
		}
		if token.Token == "" {
			token.Token = token.AccessToken
		}
	}
	return transport.FromToken(reg, auth, e.base, challenge, token)
}

// withTrouble says with a refusal that credentials could not be read.
func (e *endpoint) withTrouble(err error) error {
	if err = classify(err); e.trouble != nil && errors.Is(err, ErrUnauthorized) {
		return fmt.Errorf("%w (%w)", err, e.trouble)
	}
	return err
}

// maxChallenge bounds a WWW-Authenticate header in bytes.
const maxChallenge = 8 << 10

// parseChallenge reads WWW-Authenticate headers (RFC 9110, section 11.6.1)
// and returns the first of a scheme that registries use, else an unknown one.
func parseChallenge(headers []string, insecure bool) *transport.Challenge {
	for _, h := range headers {
		scheme, rest, _ := strings.Cut(strings.TrimSpace(h), " ")
		if len(h) <= maxChallenge && (strings.EqualFold(scheme, "bearer") || strings.EqualFold(scheme, "basic")) {
			return &transport.Challenge{Scheme: scheme, Parameters: parameters(rest), Insecure: insecure}
		}
	}
	return &transport.Challenge{Scheme: "basic", Insecure: insecure}
}

// parameters reads name=token and name="quoted string", with commas between.
func parameters(s string) map[string]string {
	out := map[string]string{}
	for {
		key, rest, ok := strings.Cut(s, "=")
		if !ok {
			return out
		}
		key = strings.ToLower(strings.Trim(key, " \t,"))
		var value string
		if strings.HasPrefix(rest, `"`) {
			value, s = quoted(rest[1:])
		} else {
			value, s, _ = strings.Cut(rest, ",")
			value = strings.TrimSpace(value)
		}
		if key != "" {
			out[key] = value
		}
	}
}

func quoted(s string) (value, rest string) {
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
